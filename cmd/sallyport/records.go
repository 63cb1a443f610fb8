package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/node"
	"sallyport/records"
	"sallyport/state"
)

// Where records of connections go besides a file.
const (
	recordsLog     = "log"
	recordsJournal = "journald"
	recordsOff     = "off"
)

// recordsName is the file of records in a node's directory.
const recordsName = "records.jsonl"

// recordsValue is the flag --records. The path of a file is made absolute: the node may be started from elsewhere the next time.
type recordsValue struct{ to *string }

func (v recordsValue) String() string { return *v.to }
func (v recordsValue) Type() string   { return "FILE" }

// Set reads a destination.
func (v recordsValue) Set(text string) (err error) {
	*v.to = text
	if _, ok := recordFile(text); ok {
		if strings.HasSuffix(text, "/") {
			return fmt.Errorf("%s is a directory; name a file in it", text)
		}
		*v.to, err = filepath.Abs(text)
	}
	return err
}

// fileValue is a flag that names a file, whose path is made absolute: the node may be started from elsewhere the next time.
type fileValue struct{ to *string }

func (v fileValue) String() string { return *v.to }
func (v fileValue) Type() string   { return "FILE" }

// Set reads a path.
func (v fileValue) Set(text string) (err error) {
	if *v.to = text; text != "" {
		*v.to, err = filepath.Abs(text)
	}
	return err
}

// recordFile returns the file that --records names; not ok if it names none.
func recordFile(records string) (path string, ok bool) {
	switch records {
	case "", recordsLog, recordsJournal, recordsOff:
		return "", false
	}
	return records, true
}

// recordFlags adds the flags of records of connections.
func recordFlags(cmd *cobra.Command, o *state.NodeOptions) {
	f := cmd.Flags()
	f.Var(recordsValue{&o.Records}, "records", "record each connection: `FILE`, log, journald or off")
	f.BoolVar(&o.Receipts, "receipts", false, "sign the records (docs/records.md)")
}

// recordArgs is the command line that recordFlags reads as o.
func recordArgs(o state.NodeOptions) (args []string) {
	if o.Records != "" {
		args = append(args, "--records", o.Records)
	}
	if o.Receipts {
		args = append(args, "--receipts")
	}
	return args
}

// recordPath returns the file that the records of a node's connections go to; empty if they go elsewhere or nowhere.
func (a *app) recordPath(name string, o state.NodeOptions) (string, error) {
	path, isFile := recordFile(o.Records)
	switch {
	case o.Receipts && o.Records != "" && !isFile:
		return "", usageError("the argument '--receipts' needs a file of records: it cannot be used with '--records %s'", o.Records)
	case o.Records != "" || o.Authority != nil || a.isInMemory && !o.Receipts:
		return path, nil
	}
	dir, err := a.dirOnce.NodeDir(name)
	return filepath.Join(dir, recordsName), err
}

// checkRecords reports what would keep recordOptions from succeeding, and changes nothing.
func (a *app) checkRecords(name string, o state.NodeOptions) error {
	path, err := a.recordPath(name, o)
	switch {
	case err != nil:
		return err
	case path != "":
		if err := records.CheckFile(path); err != nil {
			return fmt.Errorf("--records: %w", err)
		}
	case o.Records == recordsJournal:
		sink, err := records.OpenJournal("")
		if err != nil {
			return fmt.Errorf("--records journald: %w", err)
		}
		return sink.Close()
	}
	return nil
}

// recordOptions opens what the records of a node's connections go to; nil for none.
func (a *app) recordOptions(ctx context.Context, name string, o state.NodeOptions, r runOptions, self *self) (*node.RecordOptions, error) {
	path, err := a.recordPath(name, o)
	if err != nil {
		return nil, err
	}
	switch o.Records {
	case recordsLog:
		return &node.RecordOptions{Sink: records.Handler{H: a.logEncoder(o.LogFormat, &slog.HandlerOptions{})}}, nil
	case recordsJournal:
		sink, err := records.OpenJournal("")
		if err != nil {
			return nil, fmt.Errorf("--records journald: %w", err)
		}
		return &node.RecordOptions{Sink: sink}, nil
	}
	if path == "" {
		return nil, nil
	}
	file := records.FileOptions{Path: path}
	options := &node.RecordOptions{}
	if o.Receipts {
		options.Receipts = &records.Receipts{
			Identity: self.id.String(),
			History: func() []byte {
				history, _ := self.manager.History(ctx, self.id) // the node has it
				return history
			},
			Sign: func(ctx context.Context, text []byte) ([]byte, error) {
				return self.manager.SignStatement(ctx, self.id, text, time.Now().Add(time.Hour))
			},
		}
		file.Head = options.Receipts.Head
	}
	sink, err := records.OpenFile(file)
	if err != nil {
		return nil, fmt.Errorf("--records: %w", err)
	}
	options.Sink = sink
	return options, nil
}

// logEncoder returns what writes records of a node's log by itself.
func (a *app) logEncoder(format string, o *slog.HandlerOptions) slog.Handler {
	to := io.Writer(a.stderr)
	if a.foreground && a.verbose > 0 {
		to = a.logTo
	}
	if format == "json" {
		return slog.NewJSONHandler(to, o)
	}
	return slog.NewTextHandler(to, o)
}
