check_1 = check_2 = print
