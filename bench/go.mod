module example.com/async/bench

go 1.26.0

replace example.com/async => ../

require example.com/async v0.0.0-00010101000000-000000000000

require (
	github.com/google/btree v1.1.3 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
