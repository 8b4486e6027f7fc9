// Package measure builds the programs and takes the samples.
package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"example.com/async/bench/internal/proc"
	"example.com/async/bench/internal/suite"
)

// A Bench builds the programs in a temporary directory, and takes the samples.
type Bench struct {
	Seconds float64
	Workers int

	dir   string
	load  string            // path of the load generator
	paths map[string]string // paths of the programs, by name
}

// New makes a Bench and builds the load generator. The working directory must be the directory of
// the module.
func New(ctx context.Context, seconds float64, workers int) (*Bench, error) {
	dir, err := os.MkdirTemp("", "async-bench-")
	if err != nil {
		return nil, err
	}
	b := &Bench{Seconds: seconds, Workers: workers, dir: dir, paths: make(map[string]string)}
	if b.load, err = b.buildGo(ctx, "load"); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close removes the programs.
func (b *Bench) Close() error { return os.RemoveAll(b.dir) }

// Dir returns a directory for temporary files, which Close removes.
func (b *Bench) Dir() string { return b.dir }

// Build builds a program, unless the program has already been built.
func (b *Bench) Build(ctx context.Context, p *suite.Program) error {
	if b.paths[p.Name] != "" {
		return nil
	}
	build := map[suite.Language]func(context.Context, string) (string, error){
		suite.Go: b.buildGo, suite.C: b.buildC, suite.Rust: b.buildRust,
	}[p.Language]
	path, err := build(ctx, p.Name)
	if err != nil {
		return err
	}
	b.paths[p.Name] = path
	return nil
}

func (b *Bench) buildGo(ctx context.Context, name string) (string, error) {
	path := filepath.Join(b.dir, name)
	_, _, err := proc.Run(ctx, "go", []string{"build", "-o", path, "./cmd/" + name})
	return path, err
}

func (b *Bench) buildC(ctx context.Context, name string) (string, error) {
	path := filepath.Join(b.dir, name)
	_, _, err := proc.Run(ctx, "gcc", []string{"-O2", "-pthread", "-o", path, filepath.Join("native", name+".c")})
	return path, err
}

// buildRust builds a Rust program in a directory that is not removed, because a build takes
// minutes.
func (b *Bench) buildRust(ctx context.Context, name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	target := filepath.Join(cache, "async-bench")
	manifest, err := filepath.Abs(filepath.Join("rust", "Cargo.toml"))
	if err != nil {
		return "", err
	}
	// Cargo looks for .cargo/config.toml in its working directory and the directories above. This
	// file names the source of the crates.
	_, _, err = proc.Run(ctx, "sh", []string{"-c", `cd "$(dirname "$1")" && exec cargo build --release --offline --quiet --target-dir "$2"`, "sh", manifest, target})
	if err != nil {
		return "", fmt.Errorf("%w (install.sh installs what is missing)", err)
	}
	return filepath.Join(target, "release", name), nil
}

// arguments returns the command line of a subject: the word echo or work, the flags and the form.
func (b *Bench) arguments(s *suite.Subject, what string, flags ...string) []string {
	workers := b.Workers
	if s.Workers > 0 {
		workers = s.Workers
	}
	return append(append([]string{what, fmt.Sprintf("-workers=%d", workers)}, flags...), s.Form)
}
