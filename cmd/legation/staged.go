package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/legation/legation/control"
)

// showStaged tells of what some Envoys have before the others, and how these stand.
func showStaged(w io.Writer, all []control.Staged) {
	for _, s := range all {
		hold := holdOf(s)
		if len(s.Canaries) == 0 {
			fmt.Fprintf(w, "STAGED: revision %s waits for an Envoy of %s to go to first; until then %s is served\n", short(s.Revision), s.Group, short(s.From))
			continue
		}
		fmt.Fprintf(w, "STAGED: revision %s goes to %s first, others have %s; it goes on when %s held it for %s\n",
			short(s.Revision), canariesOf(s), short(s.From), plural(len(s.Canaries), "that one has", "these have"), hold)
		for _, k := range s.Canaries {
			fmt.Fprintf(w, "  %s: %s\n", k.Node, standing(k, hold))
		}
	}
}

// canariesOf tells how many of how many Envoys have it first. One that has left is among them: there may be more than are
// connected, as after a restart.
func canariesOf(s control.Staged) string {
	return fmt.Sprintf("%d of %d Envoys of %s", len(s.Canaries), max(s.Of, len(s.Canaries)), s.Group)
}

func holdOf(s control.Staged) time.Duration { return time.Duration(s.Hold * float64(time.Second)) }

// standing is how far a canary is.
func standing(k control.Canary, hold time.Duration) string {
	switch {
	case k.Connected.IsZero():
		return "is not connected"
	case k.Since.IsZero():
		return "has not taken all of it yet"
	case k.Held:
		return fmt.Sprintf("has held it for %s", hold)
	default:
		return fmt.Sprintf("holds it for %s of %s", min(time.Since(k.Since).Round(time.Second), hold), hold)
	}
}

// showParked tells of what went back, and why.
func showParked(w io.Writer, all []control.Parked) {
	for _, p := range all {
		what := fmt.Sprintf("%d of %d Envoys refused %s", p.Refused, p.Of, short(p.Revision))
		if p.Canaries {
			what = fmt.Sprintf("%d of %d Envoys that had %s first did not keep it", p.Refused, p.Of, short(p.Revision))
		}
		fmt.Fprintf(w, "ROLLED BACK: gateway %s is served revision %s: %s, at %s\n", p.Group, short(p.To), what, p.Time.Local().Format(time.DateTime))
		for _, r := range p.Reasons {
			if r.Type == "" {
				fmt.Fprintf(w, "  %s: %s %s\n", dash(r.Origin), r.Node, r.Error)
				continue
			}
			fmt.Fprintf(w, "  %s: %s %s refused by %s: %s\n", dash(r.Origin), r.Type, r.Resource, r.Node, r.Error)
		}
		fmt.Fprintln(w, "  It is parked until it changes; legation push DIR --force tries it again.")
	}
}

// showGoing tells which Envoys get a change first.
func showGoing(w io.Writer, all []control.Staged) {
	for _, s := range all {
		if len(s.Canaries) == 0 {
			fmt.Fprintf(w, "staged: to the first Envoy of %s that connects, which holds it for %s before others get it\n", s.Group, holdOf(s))
			continue
		}
		fmt.Fprintf(w, "staged: to %s, which %s it for %s before the others get it\n",
			canariesOf(s), plural(len(s.Canaries), "holds", "hold"), holdOf(s))
	}
}

// How --wait asks.
const (
	askEvery   = 500 * time.Millisecond
	awayFor    = time.Minute // that a process may not answer
	nobodyFor  = time.Minute // that there may be no Envoy to go to first
	waitedMost = 2 * time.Hour
)

// await waits until what was accepted is with all Envoys; ask tells how it stands. The error is that it isn't, and says why.
func await(ctx context.Context, w io.Writer, a control.Accepted, ask func(context.Context) (control.Outcome, error)) error {
	ctx, cancel := context.WithTimeout(ctx, waitedMost)
	defer cancel()
	answered, chosen := time.Now(), time.Now()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		o, err := ask(ctx)
		if err == nil {
			answered = time.Now()
			stages, failed := under(w, o, a)
			if failed != nil || len(stages) == 0 {
				return failed
			}
			if nobody := func(s control.Staged) bool { return len(s.Canaries) == 0 }; !slices.ContainsFunc(stages, nobody) {
				chosen = answered
			}
		}
		switch {
		case err != nil && time.Since(answered) > awayFor:
			return err
		case time.Since(chosen) > nobodyFor:
			return fmt.Errorf("revision %d is still on its way: no Envoy is connected that could have it first", a.Number)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("revision %d: what became of it is not known: %w", a.Number, ctx.Err())
		case <-tick.C:
		}
	}
}

// under lists the stages that a change is still in; the error is that it will not get through.
func under(w io.Writer, o control.Outcome, a control.Accepted) ([]control.Staged, error) {
	parked := slices.DeleteFunc(slices.Clone(o.Parked), func(p control.Parked) bool { return p.Revision != a.Hash })
	if len(parked) > 0 {
		showParked(w, parked)
		return nil, errBad
	}
	if o.Revision != a.Hash {
		return nil, errors.New("another revision is served by now: see legation history")
	}
	return slices.DeleteFunc(slices.Clone(o.Staged), func(s control.Staged) bool { return s.Revision != a.Hash }), nil
}
