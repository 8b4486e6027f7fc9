package async_test

import (
	"fmt"
	"syscall"

	"example.com/async"
)

// Any descriptor, here a pipe, with the system calls that suit it.
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
