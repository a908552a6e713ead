5hello
0

