package async_test

import (
	"fmt"
	"syscall"

	"example.com/async"
)

// The program's own loop over two pipes. No runtime is started.
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

// The key of a descriptor can be the function that handles its events.
func ExamplePollEvent() {
	p, err := async.NewPoller()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		fmt.Println(err)
		return
	}
	defer syscall.Close(pipe[0])
	defer syscall.Close(pipe[1])
	handle := func(fd int) {
		buf := make([]byte, 64)
		n, err := syscall.Read(fd, buf)
		fmt.Println(string(buf[:n]), err)
	}
	if err := p.Add(pipe[0], handle, async.Readable, async.LevelTriggered); err != nil {
		fmt.Println(err)
		return
	}
	syscall.Write(pipe[1], []byte("an event"))
	events := make([]async.PollEvent, 16)
	n, err := p.Wait(events, -1)
	for _, e := range events[:n] {
		e.Key.(func(int))(e.FD)
	}
	fmt.Println(err)
	// Output:
	// an event <nil>
	// <nil>
}

// A descriptor that is reported once, and again when the program asks for it.
func ExamplePollMode() {
	p, err := async.NewPoller()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		fmt.Println(err)
		return
	}
	defer syscall.Close(pipe[0])
	defer syscall.Close(pipe[1])
	if err := p.Add(pipe[1], nil, async.Writable, async.OnceTriggered); err != nil {
		fmt.Println(err)
		return
	}
	events := make([]async.PollEvent, 16)
	fmt.Println(p.Wait(events, 0))
	fmt.Println(p.Wait(events, 0)) // the pipe is still writable
	if err := p.Modify(pipe[1], nil, async.Writable, async.OnceTriggered); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Wait(events, 0))
	// Output:
	// 1 <nil>
	// 0 <nil>
	// 1 <nil>
}

// A pipe whose other end is closed is readable, up to the end of the data, and hung up.
func ExampleReadiness() {
	p, err := async.NewPoller()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		fmt.Println(err)
		return
	}
	defer syscall.Close(pipe[0])
	if err := p.Add(pipe[0], nil, async.Readable, async.LevelTriggered); err != nil {
		fmt.Println(err)
		return
	}
	syscall.Close(pipe[1])
	events := make([]async.PollEvent, 16)
	n, err := p.Wait(events, -1)
	for _, e := range events[:n] {
		fmt.Println("readable", e.Ready&async.Readable != 0)
		fmt.Println("writable", e.Ready&async.Writable != 0) // it was not asked for
		fmt.Println("hung up", e.Ready&async.HungUp != 0)
	}
	fmt.Println(err)
	// Output:
	// readable true
	// writable false
	// hung up true
	// <nil>
}
