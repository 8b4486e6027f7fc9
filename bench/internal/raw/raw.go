// Package raw reads and writes the rows of a run, one JSON object per line. The report is made from
// these rows alone.
package raw

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A Run describes a run. The samples after it belong to this run.
type Run struct {
	Started  string            `json:"started"`
	Command  string            `json:"command"`
	Rounds   int               `json:"rounds"`
	Seconds  float64           `json:"seconds"`
	Workers  int               `json:"workers"`
	Machine  map[string]string `json:"machine"`
	Versions map[string]string `json:"versions"`
	LeftOut  map[string]string `json:"left_out,omitempty"` // reasons, by the name of the subject or row
}

// A Sample is one reading of one subject in one row.
type Sample struct {
	Row     string             `json:"row"`
	Subject string             `json:"subject"`
	Round   int                `json:"round"`
	Metrics map[string]float64 `json:"metrics,omitempty"`
	Error   string             `json:"error,omitempty"` // why there are no metrics
}

// A line holds a run or a sample.
type line struct {
	Run    *Run    `json:"run,omitempty"`
	Sample *Sample `json:"sample,omitempty"`
}

// A Writer appends lines to a file. It does not buffer, so that an interrupted run loses no sample.
type Writer struct{ file *os.File }

// Create makes a file and its directory, and writes the description of a run. The file must not
// exist, unless more is set. If more is set and the file exists, the run is appended to the earlier
// runs, which must have the same Seconds and Workers.
func Create(name string, more bool, run Run) (*Writer, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if !more {
		flags |= os.O_EXCL
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return nil, fmt.Errorf("making the directory of the raw rows: %w", err)
	}
	if more {
		before, err := ReadFiles(name)
		if err == nil {
			err = before.add(run)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	f, err := os.OpenFile(name, flags, 0o666)
	if err != nil {
		return nil, fmt.Errorf("opening the raw rows: %w", err)
	}
	w := &Writer{f}
	return w, w.write(line{Run: &run})
}

// Add writes a sample.
func (w *Writer) Add(s Sample) error { return w.write(line{Sample: &s}) }

func (w *Writer) write(l line) error {
	if err := json.NewEncoder(w.file).Encode(l); err != nil {
		return fmt.Errorf("writing a raw row: %w", err)
	}
	return nil
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// Rows has the contents of one or several files.
type Rows struct {
	Runs    []Run
	Samples []Sample // their rounds are numbered through all runs
}

// ReadFiles reads files one after the other.
func ReadFiles(names ...string) (Rows, error) {
	var rows Rows
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return rows, fmt.Errorf("reading the raw rows: %w", err)
		}
		err = rows.read(f)
		f.Close()
		if err != nil {
			return rows, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(rows.Runs) == 0 {
		return rows, fmt.Errorf("there is no run in %q", names)
	}
	return rows, nil
}

// Rounds returns the number of rounds of all runs.
func (rows Rows) Rounds() int {
	n := 0
	for _, r := range rows.Runs {
		n += r.Rounds
	}
	return n
}

// add adds a run. It fails if the run has other Seconds or Workers than the earlier runs, because
// samples of such runs cannot be compared.
func (rows *Rows) add(r Run) error {
	if len(rows.Runs) > 0 && (r.Seconds != rows.Runs[0].Seconds || r.Workers != rows.Runs[0].Workers) {
		return fmt.Errorf("runs of %g s with %d workers and of %g s with %d workers do not belong together", rows.Runs[0].Seconds, rows.Runs[0].Workers, r.Seconds, r.Workers)
	}
	rows.Runs = append(rows.Runs, r)
	return nil
}

func (rows *Rows) read(r io.Reader) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	first := 0 // number of the first round of the run, in the numbering through all runs
	for n := 1; in.Scan(); n++ {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		switch {
		case l.Run != nil:
			first = rows.Rounds()
			if err := rows.add(*l.Run); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		case l.Sample != nil && len(rows.Runs) > 0:
			l.Sample.Round += first
			rows.Samples = append(rows.Samples, *l.Sample)
		default:
			return fmt.Errorf("line %d is no run, and no sample of a run", n)
		}
	}
	return in.Err()
}
