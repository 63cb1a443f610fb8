package main

import (
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/logging"
	"sallyport/state"
)

// logFlags adds the flags of a node's log. What the environment says when a node is created is the node's from then on.
func logFlags(cmd *cobra.Command, o *state.NodeOptions) {
	level := os.Getenv("SALLYPORT_LOG_LEVEL")
	if level == "" {
		level = os.Getenv("OCKAM_LOG_LEVEL")
	}
	f := cmd.Flags()
	f.StringVar(&o.LogLevel, "log-level", strings.ToLower(level), "debug, info, warn or error (also $SALLYPORT_LOG_LEVEL)")
	f.StringVar(&o.LogFormat, "log-format", os.Getenv("OCKAM_LOG_FORMAT"), "text or json (also $OCKAM_LOG_FORMAT)")
}

// logArgs is the command line that logFlags reads as o.
func logArgs(o state.NodeOptions) []string {
	var args []string
	if o.LogLevel != "" {
		args = append(args, "--log-level", o.LogLevel)
	}
	if o.LogFormat != "" {
		args = append(args, "--log-format", o.LogFormat)
	}
	return args
}

// logLevel reads a level; the reference's names are understood, and what is none of them means info, as there.
func (a *app) logLevel(text string) slog.Level {
	level := slog.LevelInfo
	switch strings.ToLower(text) {
	case "trace", "debug":
		level = slog.LevelDebug
	case "warn", "warning":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	}
	if a.verbose >= 2 {
		level = slog.LevelDebug
	}
	return level
}

// logger writes to standard error, which is the log file of a node in the background, and for a node in the foreground with --verbose to
// standard output. The level may be changed later.
func (a *app) logger(level, format string, rate int) (*slog.Logger, *slog.LevelVar) {
	if level == "" {
		if level = os.Getenv("SALLYPORT_LOG_LEVEL"); level == "" {
			level = os.Getenv("OCKAM_LOG_LEVEL")
		}
	}
	if format == "" {
		format = os.Getenv("OCKAM_LOG_FORMAT")
	}
	current := &slog.LevelVar{}
	current.Set(a.logLevel(level))
	o := &slog.HandlerOptions{Level: current}
	encode := func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, o) }
	if format == "json" {
		encode = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, o) }
	}
	to := a.stderr
	if a.foreground && a.verbose > 0 { // as in the reference, which without -v does not log in the foreground
		to = a.logTo
	}
	h := logging.New(to, encode, logging.Options{Rate: rate})
	a.atEnd = append(a.atEnd, h.Close)
	return slog.New(h), current
}

// checkLog refuses a level or a form of the log that there is not. The environment's are not checked: there anything goes.
func checkLog(cmd *cobra.Command, o *state.NodeOptions) error {
	levels := map[string]bool{"trace": true, "debug": true, "info": true, "warn": true, "warning": true, "error": true}
	if cmd.Flags().Changed("log-level") && !levels[strings.ToLower(o.LogLevel)] {
		return usageError("invalid value '%s' for '--log-level': it must be debug, info, warn or error", o.LogLevel)
	}
	if cmd.Flags().Changed("log-format") && o.LogFormat != "text" && o.LogFormat != "json" {
		return usageError("invalid value '%s' for '--log-format': it must be text or json", o.LogFormat)
	}
	return nil
}
