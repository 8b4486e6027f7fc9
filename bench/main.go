// Command bench measures the library, goroutines, package net and rivals.
//
//	bench [run] [flags]       measure, print tables, keep the raw rows
//	bench list                print the rows and the subjects
//
// Run it in the directory of its module. It builds a program for each kind of server, and runs each
// program in a process of its own. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"example.com/async/bench/internal/suite"
)

// The goroutine that starts children is locked to the main thread, because the kernel kills a child
// when the thread that started the child ends. The main thread ends with the process. Only a lock
// in init makes sure that main runs on the main thread.
func init() { runtime.LockOSThread() }

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores SIGHUP, and the run must go on
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	name := "run"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	switch name {
	case "run":
		return run(ctx, args)
	case "list":
		return list()
	}
	return fmt.Errorf("there is no command %q; there are run and list", name)
}

func list() error {
	fmt.Println("rows (* = in the small table):")
	for _, r := range suite.Rows {
		mark := " "
		if r.Quick {
			mark = "*"
		}
		fmt.Printf("%s %-28s %s\n", mark, r.Name, r.Title)
	}
	fmt.Println("\nsubjects:")
	for _, s := range suite.Subjects {
		fmt.Printf("  %-16s %s. %s\n", s.Name, s.What, s.Config)
	}
	return nil
}
