// Command report writes RESULTS.md and its plots from raw rows:
//
//	report [-o DIR] RAW...
//
// It is a program of its own, so that the program that measures needs no library for plots.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"example.com/async/bench/internal/report"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run() error {
	dir := flag.String("o", ".", "the `directory` of RESULTS.md and plots/")
	flag.Parse()
	if flag.NArg() == 0 {
		return errors.New("the files of the raw rows are missing")
	}
	res, err := report.Load(flag.Args()...)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(*dir, "plots"), 0o777); err != nil {
		return fmt.Errorf("making the directory of the plots: %w", err)
	}
	for _, p := range res.Plots() {
		if err := drawTo(filepath.Join(*dir, "plots", p.File+".svg"), p); err != nil {
			return fmt.Errorf("%s: %w", p.File, err)
		}
	}
	if err := os.WriteFile(filepath.Join(*dir, "RESULTS.md"), res.Markdown(), 0o666); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
