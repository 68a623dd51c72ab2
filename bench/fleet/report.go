package main

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"
)

// row is what was found of one engine in one setting.
type row struct {
	settings
	figures
}

type report struct{ rows []row }

// goal is how many times less one figure is to be of legation's than of the cache's.
type goal struct {
	scenario, what string
	times          float64
	figure         func(figures) float64
}

var goals = []goal{
	{"delta perHost", "CPU of a change", 15, func(f figures) float64 { return f.changeCPU.Seconds() }},
	{"delta perHost", "time of a change", 15, func(f figures) float64 { return f.change.Seconds() }},
	{"sotw perHost", "CPU of a change", 80, func(f figures) float64 { return f.changeCPU.Seconds() }},
	{"delta perHost", "CPU of a join storm", 10, func(f figures) float64 { return f.joinCPU.Seconds() }},
	{"delta perHost", "CPU of a reconnection", 50, func(f figures) float64 { return f.reconnectCPU.Seconds() }},
	{"delta perHost", "RSS", 5, func(f figures) float64 { return float64(f.rss) }},
}

// print writes a table, with how many times less legation's figures are in parentheses, and the goals.
func (r *report) print(w io.Writer, s settings) error {
	fmt.Fprintf(w, "%d CPUs, %s, %d Envoys, %d clusters, %d routes, medians of %d changes\n\n",
		runtime.NumCPU(), runtime.Version(), s.clients, s.clusters, s.routes, s.changes)
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "| scenario\t| engine\t| change CPU\t| all have it\t| join CPU\t| all in sync\t| reconnect CPU\t| all in sync\t| RSS\t|")
	fmt.Fprintln(t, "| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|")
	for _, one := range r.rows {
		cell := func(text string, figure func(figures) float64) string {
			if their, ok := r.beside(one); ok && figure(one.figures) > 0 {
				return fmt.Sprintf("%s (%.1f ×)", text, figure(their)/figure(one.figures))
			}
			return text
		}
		span := func(of func(figures) time.Duration) string {
			return cell(milliseconds(of(one.figures)), func(f figures) float64 { return of(f).Seconds() })
		}
		fmt.Fprintf(t, "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n", one.title(), one.engine,
			span(func(f figures) time.Duration { return f.changeCPU }), span(func(f figures) time.Duration { return f.change }),
			span(func(f figures) time.Duration { return f.joinCPU }), span(func(f figures) time.Duration { return f.join }),
			span(func(f figures) time.Duration { return f.reconnectCPU }), span(func(f figures) time.Duration { return f.reconnect }),
			cell(mebibytes(one.rss), func(f figures) float64 { return float64(f.rss) }))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, g := range goals {
		for _, one := range r.rows {
			if their, ok := r.beside(one); ok && one.engine == legation && one.title() == g.scenario {
				fmt.Fprintln(w, g.judge(g.figure(their)/g.figure(one.figures))+r.floor(one, their, g))
			}
		}
	}
	return nil
}

func (g goal) judge(times float64) string {
	word := "met   "
	if times < g.times {
		word = "MISSED"
	}
	return fmt.Sprintf("%s %s, %s: %.1f × less, wanted %.0f ×", word, g.scenario, g.what, times, g.times)
}

// floor tells what a server that only reads would come to, where that was measured.
func (r *report) floor(one row, their figures, g goal) string {
	least, ok := r.of(bare, one)
	if !ok || g.figure(least) == 0 {
		return ""
	}
	return fmt.Sprintf("; a gRPC server that only reads: %.1f ×", g.figure(their)/g.figure(least))
}

// beside gives the cache's figures in the same setting, but for labels.
func (r *report) beside(one row) (figures, bool) {
	if one.engine == cache {
		return figures{}, false
	}
	one.labels = false
	return r.of(cache, one)
}

// of gives an engine's figures in the setting of a row.
func (r *report) of(engine string, one row) (figures, bool) {
	for _, other := range r.rows {
		if other.engine == engine && other.title() == one.title() {
			return other.figures, true
		}
	}
	return figures{}, false
}

func mebibytes(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func milliseconds(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
