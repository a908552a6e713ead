0
A: b

