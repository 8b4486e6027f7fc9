package async_test

import (
	"fmt"
	"syscall"

	"example.com/async"
)

// A loop of one's own over two pipes; no runtime is started.
func ExamplePoller() {
	p, err := async.NewPoller()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	for _, name := range []string{"first", "second"} {
		var pipe [2]int
		if err := syscall.Pipe(pipe[:]); err != nil {
			fmt.Println(err)
			return
		}
		defer syscall.Close(pipe[0])
		defer syscall.Close(pipe[1])
		if err := p.Add(pipe[0], name, async.Readable, async.LevelTriggered); err != nil {
			fmt.Println(err)
			return
		}
		syscall.Write(pipe[1], []byte("hello"))

		events := make([]async.PollEvent, 16)
		n, err := p.Wait(events, -1)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, e := range events[:n] {
			buf := make([]byte, 64)
			n, _ := syscall.Read(e.FD, buf)
			fmt.Println(e.Key, string(buf[:n]))
		}
	}
	// Output:
	// first hello
	// second hello
}
