module peersock

go 1.19
