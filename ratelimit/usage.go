package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/legation/legation/store"
)

// Usage is what a consumer has used of a limit, as the store has it: what processes hold as leases is used.
type Usage struct {
	Limit     string `json:"limit"`
	Plan      string `json:"plan,omitempty"` // whose limit it is
	Rate      string `json:"rate"`           // as it holds for the consumer: [Rate.String]
	Shadow    bool   `json:"shadow,omitempty"`
	Exempt    bool   `json:"exempt,omitempty"` // nothing is counted, as where the rate is unlimited
	Used      int64  `json:"used"`
	Size      int64  `json:"size"` // how many there are: the requests of a window, the burst of GCRA
	Remaining int64  `json:"remaining"`
	Reset     int64  `json:"reset"` // seconds until the window ends, or the GCRA bucket is full
}

// ErrNoSuch is what [Service.Usage] and [Service.Adjust] wrap when there is no such plan or limit, and ErrExempt when the
// limit counts nothing for the consumer.
var (
	ErrNoSuch = errors.New("there is no")
	ErrExempt = errors.New("exempt")
)

// maxAsked is how many limits one decision asks for.
const maxAsked = 100

// Usage tells what a consumer has used of its plan, and of each limit that counts by consumer alone, which hold on
// routes where the plan doesn't. The plan is that of the consumer; empty: none. It charges nothing.
func (s *Service) Usage(_ context.Context, consumer, plan string) ([]Usage, error) {
	all, err := s.buckets(consumer, plan)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(all, maxAsked) {
		if err := s.fill(part, 0); err != nil {
			return nil, err
		}
	}
	list := make([]Usage, len(all))
	for i := range all {
		list[i] = all[i].Usage
	}
	return list, nil
}

// Adjust changes what a consumer has used of a limit that [Service.Usage] tells: hits above 0 are added, also beyond the
// limit, those below 0 given back.
func (s *Service) Adjust(_ context.Context, consumer, plan, limit string, hits int64) (Usage, error) {
	all, err := s.buckets(consumer, plan)
	if err != nil {
		return Usage{}, err
	}
	i := slices.IndexFunc(all, func(b bucket) bool { return b.Limit == limit })
	switch {
	case i < 0:
		return Usage{}, fmt.Errorf("%w limit %q that counts by consumer alone", ErrNoSuch, limit)
	case all[i].Exempt:
		return Usage{}, fmt.Errorf("the consumer %q is %w from the limit %q: nothing is counted", consumer, ErrExempt, limit)
	}
	err = s.fill(all[i:i+1], hits)
	return all[i].Usage, err
}

// bucket is a consumer's in the store.
type bucket struct {
	Usage
	hit store.Hit
}

// buckets are those of the plan, then those of the limits by consumer, sorted by name.
func (s *Service) buckets(consumer, plan string) ([]bucket, error) {
	t := s.table.Load()
	var all []bucket
	if plan != "" {
		p := t.plans[plan]
		if p == nil {
			return nil, fmt.Errorf("%w plan %q", ErrNoSuch, plan)
		}
		for _, l := range p.limits {
			all = append(all, l.of(consumer, plan))
		}
	}
	n := len(all)
	for _, l := range t.named {
		if l.ByConsumer() && !l.planned {
			all = append(all, l.of(consumer, ""))
		}
	}
	slices.SortFunc(all[n:], func(a, b bucket) int { return strings.Compare(a.Limit, b.Limit) })
	return all, nil
}

func (l *limit) of(consumer, plan string) bucket {
	key, r := l.bucket(nil, l.prefix, &Attributes{Consumer: consumer})
	b := bucket{Usage: Usage{Limit: l.Name, Plan: plan, Rate: l.Rate.String(), Shadow: l.Shadow}}
	for _, o := range l.Overrides {
		if o.Value == consumer {
			b.Rate = o.Rate.String()
		}
	}
	if r == nil || r.unlimited {
		b.Exempt = true
		return b
	}
	b.hit = r.on(string(key), 0)
	b.hit.Lease, b.hit.Beyond = 0, true
	return b
}

// fill asks the store, and adds hits to each bucket.
func (s *Service) fill(buckets []bucket, hits int64) error {
	var d store.Decision
	for i := range buckets {
		if !buckets[i].Exempt {
			buckets[i].hit.Hits = hits
			d.Hits = append(d.Hits, buckets[i].hit)
		}
	}
	if len(d.Hits) == 0 {
		return nil
	}
	s.store.Decide([]*store.Decision{&d})
	if d.Err != nil {
		return d.Err
	}
	n := 0
	for i := range buckets {
		b := &buckets[i]
		if b.Exempt {
			continue
		}
		o := &d.Outcomes[n]
		b.Used, b.Size, b.Remaining, b.Reset = o.Count, o.Limit, o.Remaining, seconds(o.Reset)
		n++
	}
	return nil
}
