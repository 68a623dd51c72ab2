package auth

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DecisionLog says which decisions are logged. A line tells what was decided and why, who asked for what, and nothing that
// lets in: no header but the request's ID and its trace, no query, no claim.
type DecisionLog string

// The choices of DecisionLog.
const (
	LogNone   DecisionLog = ""
	LogDenied DecisionLog = "denied" // also those that were answered by a login
	LogAll    DecisionLog = "all"
)

// decisionLog writes at most rate lines a second, of those that come first in it. It holds up no request: what the log
// does not take in time is left out, too. A line tells how many were left out before it.
type decisionLog struct {
	denied  bool // those alone
	rate    int
	handler slog.Handler
	lines   chan slog.Record
	missed  prometheus.Counter

	mu     sync.Mutex // guards what follows
	second int64      // since 1970
	used   int        // in it
	left   uint64     // out, since the last line
}

const (
	decisionRate  = 100 // lines a second
	decisionsHeld = 256 // lines that the log hasn't taken yet
)

func newDecisionLog(o Options, missed prometheus.Counter) *decisionLog {
	if o.Decisions == LogNone || o.Log == nil {
		return nil
	}
	return &decisionLog{
		denied: o.Decisions == LogDenied, rate: cmp.Or(o.DecisionRate, decisionRate), handler: o.Log.Handler(),
		lines: make(chan slog.Record, decisionsHeld), missed: missed,
	}
}

// run writes the lines until ctx ends.
func (l *decisionLog) run(ctx context.Context) {
	for {
		select {
		case r := <-l.lines:
			_ = l.handler.Handle(ctx, r)
		case <-ctx.Done():
			for len(l.lines) > 0 {
				_ = l.handler.Handle(ctx, <-l.lines)
			}
			return
		}
	}
}

// observe logs decisions that were made together, from start on in a time.
func (l *decisionLog) observe(decisions []*decision, start time.Time, took time.Duration) {
	if l == nil {
		return
	}
	for _, d := range decisions {
		if d.unread || d.later || l.denied && d.deny == nil {
			continue
		}
		left, ok := l.admit(start.Unix())
		if !ok {
			continue
		}
		select {
		case l.lines <- d.record(start, took, left):
		default:
			l.leave(left + 1)
		}
	}
}

// admit tells whether there is room for a line, and how many were left out before it.
func (l *decisionLog) admit(second int64) (left uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.second != second {
		l.second, l.used = second, 0
	}
	if l.used == l.rate {
		l.left++
		l.missed.Inc()
		return 0, false
	}
	l.used++
	left, l.left = l.left, 0
	return left, true
}

func (l *decisionLog) leave(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left += n
	l.missed.Inc()
}

// record is the line. It copies what it takes of the message.
func (d *decision) record(start time.Time, took time.Duration, left uint64) slog.Record {
	r := slog.NewRecord(start, slog.LevelInfo, "decision", 0)
	text := func(name, value string) {
		if value != "" {
			r.AddAttrs(slog.String(name, strings.ToValidUTF8(strings.Clone(value), "?")))
		}
	}
	if d.deny == nil {
		text("decision", "allow")
	} else {
		text("decision", "deny")
		text("reason", d.deny.reason)
	}
	if d.rule != nil {
		text("rule", d.rule.name)
	}
	if d.by != nil {
		text("entry", d.by.name)
	}
	text("consumer", d.who.name)
	if shownMethod(d.method) {
		text("method", d.method)
	}
	if cleanHost(d.host) { // else it may hold a name and a password
		text("host", d.host)
	}
	text("path", shownPath(d.path))
	if a := d.client(); a.IsValid() {
		text("client", a.String())
	}
	text("request", requestID(d.header("x-request-id")))
	text("trace", traceID(d.header("traceparent")))
	text("limit", d.verdict.Limit)
	r.AddAttrs(slog.Float64("seconds", took.Seconds()))
	if left > 0 {
		r.AddAttrs(slog.Uint64("left_out", left))
	}
	return r
}

// maxShownPath is the most bytes of a path that are logged.
const maxShownPath = 1024

// shownPath is a path without its query, and without the parameters of its segments, which some servers keep sessions in.
func shownPath(path string) string {
	if path == "*" {
		return path
	}
	if !strings.HasPrefix(path, "/") {
		return ""
	}
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		path = path[:end]
	}
	if end := strings.Index(strings.ToLower(path), "%3f"); end >= 0 { // a query to those who read it once more
		path = path[:end]
	}
	if len(path) > maxShownPath {
		path = path[:maxShownPath]
	}
	if strings.IndexByte(path, ';') < 0 {
		return path
	}
	segments := strings.Split(path, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}

func shownMethod(s string) bool {
	return len(s) <= 32 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_") == ""
}

// requestID is one that looks like it: anything may stand in a header.
func requestID(s string) string {
	if len(s) > 64 || strings.Trim(s, "0123456789abcdefABCDEF-") != "" {
		return ""
	}
	return s
}

// traceID is that of a traceparent: 00-TRACE-PARENT-FLAGS.
func traceID(s string) string {
	parts := strings.Split(s, "-")
	if len(parts) < 4 || len(parts[1]) != 32 || strings.Trim(parts[1], "0123456789abcdef") != "" {
		return ""
	}
	return parts[1]
}
