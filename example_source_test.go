package async_test

import (
	"fmt"
	"syscall"

	"example.com/async"
)

// A descriptor of any kind, here a pipe, with the system calls that suit it.
func ExampleSource() {
	var p [2]int
	if err := syscall.Pipe(p[:]); err != nil {
		fmt.Println(err)
		return
	}
	defer syscall.Close(p[1])
	err := async.Run(func(cx *async.Context) error {
		s, err := async.NewSource(p[0])
		if err != nil {
			return err
		}
		defer s.Close()
		async.Go(cx, func(*async.Context) error {
			_, err := syscall.Write(p[1], []byte("through a pipe"))
			return err
		})
		buf := make([]byte, 64)
		n, err := s.ReadWith(cx, func(fd int) (int, error) { return syscall.Read(fd, buf) })
		fmt.Println(string(buf[:n]))
		return err
	})
	fmt.Println(err)
	// Output:
	// through a pipe
	// <nil>
}

// The program sends a signal to itself.
func ExampleSignals() {
	err := async.Run(func(cx *async.Context) error {
		s := async.Signals(syscall.SIGUSR1, syscall.SIGUSR2)
		defer s.Close()
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR1); err != nil {
			return err
		}
		sig, err := s.Next(cx)
		fmt.Println(sig == syscall.SIGUSR1)
		return err
	})
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// A server that reads its configuration anew at each SIGHUP.
func ExampleSignalStream() {
	err := async.Run(func(cx *async.Context) error {
		s := async.Signals(syscall.SIGHUP)
		defer s.Close()
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			return err
		}
		for sig, err := range s.All(cx) {
			if err != nil {
				return err
			}
			fmt.Println("reads its configuration:", sig == syscall.SIGHUP)
			if err := s.Close(); err != nil { // ends the loop
				return err
			}
		}
		fmt.Println("ends")
		return nil
	})
	fmt.Println(err)
	// Output:
	// reads its configuration: true
	// ends
	// <nil>
}
