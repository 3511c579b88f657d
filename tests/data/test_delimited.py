import csv
import io
import logging
import tracemalloc

import pytest
from commands import line_of

import data.delimited
import data.rows
from data import ReadOptions
from data.formats import read_table

TABLE = "text,label\n"
DIALOGUE = [
    ("we wait ,", "fear"),
    ('"i passed .', "joy"),
    ("you too ?", "fear"),
    ('we all did "', "joy"),
    ("so .", "fear"),
]


def read(tmp_path, content, ending=".csv", **options):
    """The rows of a file as (line, text, label), and its bad rows as (line, kind)."""
    path = tmp_path / f"corpus{ending}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = read_table(path, ReadOptions(**options))
    rows = table.rows[["line", "text", "label"]].itertuples(index=False, name=None)
    return list(rows), list(table.bad_rows[["line", "kind"]].itertuples(index=False, name=None))


def refusal(tmp_path, content, ending=".csv", **options):
    path = tmp_path / f"corpus{ending}"
    path.write_text(content, newline="")
    return line_of(read_table, path, ReadOptions(**options)).replace(str(path), "FILE")


def said(caplog):
    return [record.getMessage().partition(": ")[2] for record in caplog.records if record.levelno == logging.WARNING]


# Quotes


def test_a_tsv_whose_texts_begin_with_quotation_marks_keeps_every_row(tmp_path, caplog):
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in DIALOGUE)
    rows, bad = read(tmp_path, content, ".tsv")
    assert [row[1:] for row in rows] == DIALOGUE
    assert not bad
    assert said(caplog) == ["quotation marks are part of the texts"]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("separator", ["\t", ";", "|"])
def test_a_quoted_table_is_read_as_python_wrote_it_whatever_its_separator(tmp_path, caplog, separator, quoting):
    texts = ["plain", 'she said "hi"', f"with{separator}in", "two\nlines", "", '"']
    rows = [(number, text, "yes" if number % 2 else "no") for number, text in enumerate(texts)]
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator, quoting=quoting).writerows([("id", "text", "label"), *rows])
    read_rows, bad = read(tmp_path, stream.getvalue(), ".tsv")
    assert [row[1:] for row in read_rows] == [(text, label) for _, text, label in rows if text]
    assert [kind for _, kind in bad] == ["empty texts"]
    assert said(caplog)[0].endswith("quotation marks enclose fields")


@pytest.mark.parametrize(
    ("rows", "is_quoted"),
    [
        ('plain\tx\n"a ""b"""\ty\n"c\td"\ty\n"open\tx\n', True),  # one broken row among two that need marks
        ('"a"\t"x"\n' * 9 + 'b"\t"x\n', True),  # one broken row among nine that are quoted throughout
        ('plain\tx\n"a"\ty\nplain\tx\n', False),  # nobody quotes only what needs no marks
        ('"a" she said\tx\n"b ""c"""\ty\n"d" he said\tx\n', False),
        ('"a\tx\n', False),
    ],
)
def test_the_whole_file_decides_on_quoting(tmp_path, caplog, rows, is_quoted):
    read(tmp_path, "text\tlabel\n" + rows, ".tsv")
    assert said(caplog) == [f"quotation marks {'enclose fields' if is_quoted else 'are part of the texts'}"]


def test_an_open_mark_in_a_csv_costs_one_row_and_swallows_none(tmp_path):
    content = TABLE + '"he said,joy\nyou,fear\nshe said",joy\nx,fear\n'
    rows, bad = read(tmp_path, content)
    assert rows == [(3, "you", "fear"), (4, 'she said"', "joy"), (5, "x", "fear")]
    assert bad == [(2, "rows with broken quotes")]
    rows, bad = read(tmp_path, 'label,text\njoy,"he said\nfear,you\njoy,she said"\nfear,x\n')
    assert [row[2] for row in rows] == ["fear", "joy", "fear"]
    assert bad == [(2, "rows with broken quotes")]
    assert read(tmp_path, TABLE + 'a,x\n"b,y\nc,x\n') == (
        [(2, "a", "x"), (4, "c", "x")],
        [(3, "rows with broken quotes")],
    )


@pytest.mark.parametrize("header", ["text,label", "label,text"])
def test_texts_of_several_lines_are_texts_also_where_these_have_commas(tmp_path, header):
    texts = ["Dear all,\nfine, ok\n\nbye", "roses, red\nviolets, blue", "one,\ntwo", "plain"]
    lines = [f'"{text}",joy' if header == "text,label" else f'joy,"{text}"' for text in texts]
    rows, bad = read(tmp_path, "\n".join([header, *lines]))
    assert [text for _, text, _ in rows] == texts
    assert not bad


def test_a_hundred_thousand_open_marks_take_linear_time(tmp_path):
    """Each would run to the end of the file: with the square of the lines, this takes an hour."""
    rows, bad = read(tmp_path, TABLE + 'a",",b\n' * 100_000)
    assert (len(rows), len(bad)) == (0, 100_000)


def test_a_mark_that_stays_open_over_a_corpus_is_found_soon(tmp_path):
    rows, bad = read(tmp_path, TABLE + '"open,x\n' + "a,x\nb,y\n" * 10_000)
    assert (len(rows), bad) == (20_000, [(2, "rows with broken quotes")])


# Separators and headers


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("|", "bars"), ("\t", "tabs"), (",", "commas")])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_the_header_shows_the_separator(tmp_path, caplog, separator, name, ending):
    lines = [("id", "label", "text"), ("1", "x", "Yes, sir. Stop: go"), ("2", "y", "No, sir")]
    expected = [(2, "Yes, sir. Stop: go", "x"), (3, "No, sir", "y")]
    if separator == ",":
        lines = [[field.replace(", ", " ") for field in line] for line in lines]
        expected = [(line, text.replace(", ", " "), label) for line, text, label in expected]
    assert read(tmp_path, "\n".join(map(separator.join, lines)), ending) == (expected, [])
    usual = separator == {".csv": ",", ".tsv": "\t"}[ending]
    assert said(caplog) == ([] if usual else [f"fields are separated by {name}"])


def test_a_file_with_forty_columns_and_one_with_an_index_are_read(tmp_path):
    header = "|".join([*map(str, range(38)), "text", "label"])
    row = "|".join([*"a" * 38, "so, what; then", "joy"])
    assert read(tmp_path, f"{header}\n{row}\n") == ([(2, "so, what; then", "joy")], [])
    assert read(tmp_path, ",text,label\n0,a,x\n1,b,\n") == ([(2, "a", "x")], [(3, "empty labels")])


AG_NEWS = '"3","Oil is up","Oil, again, is up."\n"4","Chips","New chips."\n"3","Gold","Gold is down."\n'
GO_EMOTIONS = "My food is cold .\t2,5\tid1\nGood for you\t27\tid2\nWhat a day\t2\tid3\nSo ?\t27\tid4\n"


def test_a_file_without_a_header_is_refused_with_what_to_pass(tmp_path):
    message = refusal(tmp_path, AG_NEWS)
    assert message.startswith("FILE:1: expected one column 'text', there are '3', 'Oil is up', 'Oil, again, is up.'")
    assert "pass --no-header, with the numbers of its columns as --text-column and --label-column" in message


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize(
    ("content", "ending", "text", "label", "first"),
    [
        (AG_NEWS, ".csv", "3", "1", (1, "Oil, again, is up.", "3")),
        (GO_EMOTIONS, ".tsv", "1", "2", (1, "My food is cold .", "2,5")),
        (
            "such a long text is no name\tonce\nb\tx\nc\ty\n",
            ".tsv",
            "1",
            "2",
            (1, "such a long text is no name", "once"),
        ),
        ('"open\tx\nb\tx\n', ".tsv", "1", "2", (1, '"open', "x")),
    ],
)
def test_columns_have_numbers_and_the_first_row_is_a_row(tmp_path, caplog, content, ending, text, label, first, header):
    rows, bad = read(tmp_path, content, ending, text_column=text, label_column=label, header=header)
    assert rows[0] == first
    assert not bad
    assert len(rows) == content.count("\n")
    assert said(caplog)[0].startswith(f"column {text} is the text, column {label} the label; the first line is a row")


@pytest.mark.parametrize("names", ["0,1", "tweet,mood", ",0", "1,1", "text,text"])
def test_columns_may_have_numbers_also_where_a_header_names_them(tmp_path, caplog, names):
    rows, _ = read(tmp_path, f"{names}\na,1\nb,0\nc,1\n", text_column="1", label_column="2", header=names != "1,1")
    assert rows == ([(1, "1", "1")] if names == "1,1" else []) + [(2, "a", "1"), (3, "b", "0"), (4, "c", "1")]
    assert f"the first line is a {'row' if names == '1,1' else 'header'}" in said(caplog)[0]


def test_without_a_header_the_first_two_columns_are_text_and_label(tmp_path):
    assert read(tmp_path, "a,x\nb,y\n", header=False)[0] == [(1, "a", "x"), (2, "b", "y")]
    assert "expected numbers of columns, counted from 1, got 'tweet' and 'label'" in refusal(
        tmp_path, "a,x\n", header=False, text_column="tweet"
    )
    assert "expected at least 9 columns, got fewer" in refusal(tmp_path, "a,x\n", text_column="1", label_column="9")


@pytest.mark.parametrize("first", ["one, two,x\n", '"open,x\n', "one\n", '"a" b,x\n'])
def test_a_broken_first_row_breaks_no_other(tmp_path, first):
    rows, bad = read(tmp_path, first + '"a, b",x\nc,y\nd,x\n', header=False)
    assert [row[1:] for row in rows] == [("a, b", "x"), ("c", "y"), ("d", "x")]
    assert [line for line, _ in bad] == [1]
    rows, bad = read(tmp_path, first + '"a, b",x\nc,y\nd,x\n', text_column="1", label_column="2")
    assert (len(rows), len(bad)) == (3, 1)


def test_sentiment140_is_read_with_its_numbers_and_its_encoding(tmp_path):
    rows = [f'"{label}","{i}","Mon Apr 06","NO_QUERY","user{i}","caf\xe9, day {i}"' for i, label in enumerate("0404")]
    content = "\n".join(rows).encode("latin-1")
    read_rows, bad = read(tmp_path, content, text_column="6", label_column="1", header=False, encoding="latin-1")
    assert read_rows == [(i + 1, f"café, day {i}", label) for i, label in enumerate("0404")]
    assert not bad


def test_headers_in_between_are_bad_rows(tmp_path):
    content = TABLE + "a,x\n" + TABLE + "b,y\n\ufeff" + TABLE + "text,y\nc,label\n"
    rows, bad = read(tmp_path, content)
    assert rows == [(2, "a", "x"), (4, "b", "y"), (6, "text", "y"), (7, "c", "label")]
    assert bad == [(3, "repeated headers"), (5, "repeated headers")]


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"'])
def test_the_line_that_tells_excel_the_separator_is_refused_by_its_name(tmp_path, line):
    message = refusal(tmp_path, f"{line}\r\ntext;label\r\na;x\r\n")
    assert f"FILE:1: expected the names of columns, got {line!r}, which is for Excel; remove this line" in message


def test_equal_rows_stay_and_words_for_nothing_are_texts(tmp_path):
    content = TABLE + "a,x\na,x\n\\N,x\nNULL,NA\nnan,None\n"
    assert [row[1:] for row in read(tmp_path, content)[0]] == [
        ("a", "x"), ("a", "x"), ("\\N", "x"), ("NULL", "NA"), ("nan", "None"),
    ]  # fmt: skip


# Ends of lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("header", ["text,label", '"text","label"'])
def test_lines_may_end_in_three_ways_after_a_byte_order_mark(tmp_path, end, start, header):
    content = start + end.join([header, "a,x", '"b",y']) + end
    assert read(tmp_path, content) == ([(2, "a", "x"), (3, "b", "y")], [])


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_a_lone_carriage_return_is_no_part_of_a_row(tmp_path, ending, separator):
    content = f"text{separator}label\na\rb{separator}x\nc{separator}y\n"
    assert read(tmp_path, content, ending) == ([(3, "c", "y")], [(2, "rows with broken quotes")])


def test_fields_too_many_and_too_few_are_bad_rows(tmp_path):
    content = TABLE + "i am happy, really,joy\nb\nc,x\n" + "," * 1_000_000
    kind = "rows with another number of fields"
    assert read(tmp_path, content) == ([(4, "c", "x")], [(2, kind), (3, kind), (5, kind)])


@pytest.mark.parametrize(
    ("ending", "start"),
    [(".csv", TABLE), (".csv", TABLE + '"'), (".tsv", 'text\tlabel\n"'), (".txt", ""), (".jsonl", "")],
)
def test_megabytes_of_newlines_are_refused_without_a_list_of_them(tmp_path, monkeypatch, ending, start):
    monkeypatch.setattr(data.rows, "MOST", 1000)
    monkeypatch.setattr(data.delimited, "DECIDED_BY", 1000)
    tracemalloc.start()
    message = refusal(tmp_path, start + "\n" * 10_000_000, ending)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message.startswith("FILE: over 1,000 rows cannot be used, the first is line ")
    assert peak < 50_000_000  # the content of the file is there three times; a list of its lines has 80 MB
