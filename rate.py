"""Do explanations help people? `make rate`, or `python rate.py --help`.

A page in your browser asks a rater to predict the network, before and after explanations were read, to compare two
methods, and to mark words. It needs what `make explain` wrote. `make agreement` says what the answers show."""

from dataclasses import dataclass
from functools import partial

from experiments.rate.items import RANDOM, make_items
from experiments.rate.server import create_app
from experiments.rate.simulate import simulate_raters
from lab.cli import check_ranges, command
from lab.progress import console
from lab.runs import lock_folder
from lab.server import listen, serve
from lab.study import read_run
from model import InputError


@dataclass(frozen=True)
class Options:
    """Let people rate a run's explanations in a page of this machine; answers land in runs/NAME/explain/answers."""

    run: str = "latest"  # name of the run
    method: str = "integrated_gradients"  # of the explanations that are read, and compared with another one
    against: str = RANDOM  # the other method; random: the same weights on other words
    seed: int = 0  # of the choice of texts
    port: int = 8643  # of the page's address; 0: any free one
    open: bool = True  # open the page in the browser, where a person started this; --no-open: only print its address
    host: str = "127.0.0.1"  # address to listen on; any other lets every machine in that reaches it
    allow_host: tuple[str, ...] = ()  # names by which browsers elsewhere call this machine, as "name" or "name:port"
    simulate: int = 0  # write the answers of so many simulated raters, instead of serving the page
    accuracy: float = 0.7  # of simulated raters, 0 to 1


def main(options: Options) -> int:
    check_ranges(options, port=(0, 65536), simulate=(0, 1000), seed=(0, 2**32))
    if not 0 <= options.accuracy <= 1:
        raise InputError(f"--accuracy {options.accuracy}: expected 0 to 1")
    run, _ = read_run(options.run)
    items = make_items(run / "explain", run.name, options.method, options.against, options.seed)
    folder = run / "explain" / "answers"
    folder.mkdir(exist_ok=True)
    with lock_folder(folder, "end it, or use its page"):
        console.print(items.description)
        if options.simulate:
            simulate_raters(folder, items, options.simulate, options.accuracy)
            console.print(f"{folder} has {options.simulate} simulated raters; `make agreement` says what they show")
        else:
            with listen(options.host, options.port) as listener:
                app = partial(create_app, folder, items)
                serve(app, listener, options.host, options.allow_host, options.open)
    return 0


if __name__ == "__main__":
    command(main, Options)
