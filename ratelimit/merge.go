package ratelimit

import (
	"cmp"
	"slices"
	"time"
)

// AddBusy adds up what two processes that share their work told of the busiest keys.
func AddBusy(a, b []Busy) []Busy {
	type id struct{ limit, value string }
	sums := map[id]Busy{}
	for _, one := range slices.Concat(a, b) {
		at := id{one.Limit, one.Value}
		sum := sums[at]
		if rate := sum.Rate + one.Rate; rate > 0 {
			one.Over = (sum.Over*sum.Rate + one.Over*one.Rate) / rate
			one.Rate = rate
		}
		sums[at] = one
	}
	all := make([]Busy, 0, len(sums))
	for _, sum := range sums {
		all = append(all, sum)
	}
	sortBusy(all)
	return all
}

func sortBusy(all []Busy) {
	slices.SortFunc(all, func(a, b Busy) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Value, b.Value))
	})
}

// AddReports adds up the reports of two processes that share their work. Versions of a limit that differ stay apart.
// Nobody can tell how many values asked both: Values and ValuesOver are the larger ones, so at least as many did.
func AddReports(a, b []Report) []Report {
	all := slices.Clone(a)
	for _, other := range b {
		same := func(p Report) bool { return p.Limit == other.Limit && p.Rate == other.Rate && p.Shadow == other.Shadow }
		if i := slices.IndexFunc(all, same); i >= 0 {
			all[i] = all[i].add(other)
			continue
		}
		all = append(all, other)
	}
	slices.SortStableFunc(all, func(a, b Report) int { return cmp.Compare(a.Limit, b.Limit) })
	return all
}

func (p Report) add(o Report) Report {
	p.Since = earlier(p.Since, o.Since)
	p.Requests += o.Requests
	p.Over += o.Over
	p.Values, p.ValuesOver = max(p.Values, o.Values), max(p.ValuesOver, o.ValuesOver)
	p.Peak, p.Fits99 = max(p.Peak, o.Peak), max(p.Fits99, o.Fits99)
	p.Worst = slices.Clone(p.Worst)
	for _, v := range o.Worst {
		i := slices.IndexFunc(p.Worst, func(w ValueReport) bool { return w.Value == v.Value })
		if i < 0 {
			p.Worst = append(p.Worst, v)
			continue
		}
		w := &p.Worst[i]
		w.Over, w.Least, w.Peak = w.Over+v.Over, w.Least+v.Least, max(w.Peak, v.Peak)
		w.First, w.Last = earlier(w.First, v.First), later(w.Last, v.Last)
	}
	sortWorst(p.Worst)
	p.Worst = p.Worst[:min(len(p.Worst), maxWorst)]
	return p
}

func sortWorst(worst []ValueReport) {
	slices.SortFunc(worst, func(a, b ValueReport) int {
		return cmp.Or(cmp.Compare(b.Over, a.Over), cmp.Compare(a.Value, b.Value))
	})
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
