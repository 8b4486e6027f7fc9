package async_test

import (
	"bufio"
	"fmt"
	"time"

	"example.com/async"
)

func ExampleCommand() {
	async.Run(func(cx *async.Context) error {
		cx, cancel := cx.WithTimeout(time.Minute) // kills it
		defer cancel()
		out, err := async.Command("echo", "hello").Output(cx)
		fmt.Print(string(out), err)
		return nil
	})
	// Output:
	// hello
	// <nil>
}

func ExampleCmd() {
	async.Run(func(cx *async.Context) error {
		cmd := async.Command("tr", "a-z", "A-Z")
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(cx); err != nil {
			return err
		}
		in.WriteString(cx, "louder\n")
		in.Close(cx)
		line, _ := bufio.NewReader(async.BindFile(cx, out)).ReadString('\n')
		fmt.Print(line)
		return cmd.Wait(cx)
	})
	// Output: LOUDER
}
