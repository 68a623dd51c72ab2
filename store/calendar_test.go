package store

import (
	"testing"
	"testing/synctest"
	"time"

	_ "time/tzdata" // zones, wherever the tests run

	"github.com/google/go-cmp/cmp"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestPeriodBounds(t *testing.T) {
	for _, row := range []struct {
		name       string
		period     Period
		zone       string
		now        string // in UTC, as what follows
		start, end string
	}{
		{"day", Day, "UTC", "2026-03-03T11:17:23Z", "2026-03-03T00:00:00Z", "2026-03-04T00:00:00Z"},
		{"day's first moment", Day, "UTC", "2026-03-03T00:00:00Z", "2026-03-03T00:00:00Z", "2026-03-04T00:00:00Z"},
		{"day's last moment", Day, "UTC", "2026-03-03T23:59:59.999999Z", "2026-03-03T00:00:00Z", "2026-03-04T00:00:00Z"},
		{"another date there", Day, "Asia/Tokyo", "2026-03-03T15:00:00Z", "2026-03-03T15:00:00Z", "2026-03-04T15:00:00Z"},
		{"half hours", Day, "Asia/Kolkata", "2026-03-03T11:17:23Z", "2026-03-02T18:30:00Z", "2026-03-03T18:30:00Z"},
		{"23 hours", Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"25 hours", Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{"24 and a half hours", Day, "Australia/Lord_Howe", "2026-04-05T00:00:00Z", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"},
		{"no midnight", Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"},
		{"the day before that", Day, "America/Sao_Paulo", "2018-11-04T02:59:59Z", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z"},
		{"midnight put back to 23:00", Day, "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"},
		{"no midnight in Cairo", Day, "Africa/Cairo", "2024-04-25T22:30:00Z", "2024-04-25T22:00:00Z", "2024-04-26T21:00:00Z"},
		{"midnight twice", Day, "America/Havana", "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		{"a minute after midnight put back", Day, "America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"},
		{"a date left out", Day, "Pacific/Apia", "2011-12-30T09:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
		{"the date after", Day, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"week", Week, "UTC", "2026-03-03T11:17:23Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"},
		{"week on Monday", Week, "UTC", "2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"},
		{"week on Sunday", Week, "UTC", "2026-03-08T23:59:59Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"},
		{"week over the year", Week, "UTC", "2026-01-01T00:00:00Z", "2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"},
		{"week of 167 hours", Week, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"month", Month, "UTC", "2026-02-28T11:17:23Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		{"leap month", Month, "UTC", "2028-02-29T11:17:23Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{"month on the 31st", Month, "America/New_York", "2026-03-31T11:17:23Z", "2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z"},
		{"December", Month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"year", Year, "Asia/Tokyo", "2026-12-31T15:00:00Z", "2026-12-31T15:00:00Z", "2027-12-31T15:00:00Z"},
		{"leap year", Year, "UTC", "2028-06-01T00:00:00Z", "2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z"},
	} {
		now, err := time.Parse(time.RFC3339Nano, row.now)
		if err != nil {
			t.Fatal(err)
		}
		start, end := periodBounds(row.period, zone(t, row.zone), now)
		got := [2]string{start.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339)}
		if d := cmp.Diff([2]string{row.start, row.end}, got); d != "" {
			t.Errorf("%s: %s in %s (-want +got):\n%s", row.name, row.now, row.zone, d)
		}
	}
}

// TestPeriodsFollowEachOther walks odd zones: each period begins where the last one ended, and has now in it.
func TestPeriodsFollowEachOther(t *testing.T) {
	for _, name := range []string{
		"UTC", "Europe/Berlin", "America/Sao_Paulo", "America/Havana", "America/St_Johns", "Asia/Beirut", "Africa/Cairo",
		"Asia/Gaza", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kwajalein", "Africa/Casablanca", "Antarctica/Troll",
	} {
		z := zone(t, name)
		for p := Day; p <= Year; p++ {
			now := time.Date(1990, time.January, 1, 12, 0, 0, 0, time.UTC)
			_, last := periodBounds(p, z, now)
			for last.Year() < 2030 {
				start, end := periodBounds(p, z, last)
				if !start.Equal(last) || !end.After(start) {
					t.Fatalf("%s: after %s comes %s to %s", name, last, start, end)
				}
				s, e := periodBounds(p, z, end.Add(-time.Microsecond))
				if !s.Equal(start) || !e.Equal(end) {
					t.Fatalf("%s: %s to %s ends with %s to %s", name, start, end, s, e)
				}
				last = end
			}
		}
	}
}

func TestCalendarQuotaReopensAtMidnight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it starts at midnight, 2000-01-01, in UTC: an hour into the day in Berlin
		s := open(t, Options{})
		defer s.Close()
		h := Hit{Key: "a", Algorithm: Calendar, Period: Day, Zone: zone(t, "Europe/Berlin"), Limit: 2, Hits: 1}
		other := h
		other.Key, other.Zone = "b", nil
		for i := range 3 {
			if got := count(t, s, h)[0]; got.Allowed != (i < 2) || got.Reset != 23*time.Hour {
				t.Errorf("hit %d: %+v", i, got)
			}
		}
		if got := count(t, s, other)[0]; got.Reset != 24*time.Hour {
			t.Errorf("in UTC: %+v", got)
		}
		time.Sleep(23*time.Hour - time.Microsecond)
		if got := count(t, s, h)[0]; got.Allowed || got.RetryAfter != time.Microsecond {
			t.Errorf("before midnight: %+v", got)
		}
		time.Sleep(time.Microsecond)
		if got := count(t, s, h)[0]; !got.Allowed || got.Count != 1 || got.Reset != 24*time.Hour {
			t.Errorf("at midnight: %+v", got)
		}
		month := h
		month.Period = Month
		if got := count(t, s, month)[0]; got.Count != 1 {
			t.Errorf("another period begins anew: %+v", got)
		}
	})
}

func BenchmarkPeriodBounds(b *testing.B) {
	z, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		b.Fatal(err)
	}
	now := time.Date(2026, time.March, 29, 12, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		periodBounds(Month, z, now)
	}
}

// TestZonesLoadedTwiceAreOne has hits of one bucket whose zone was loaded for each, as when policies are read anew.
func TestZonesLoadedTwiceAreOne(t *testing.T) {
	s := openAt(t, startRedis(t).url(), 0)
	h := Hit{Key: "zone", Algorithm: Calendar, Period: Year, Zone: zone(t, "Asia/Tokyo"), Limit: 3, Hits: 1}
	again := h
	again.Zone = zone(t, "Asia/Tokyo")
	var got []tally
	for _, o := range decideAll(t, s, h, h, again, h, again) {
		got = append(got, tally{o.Allowed, o.Remaining, o.Count})
	}
	want := []tally{{true, 2, 1}, {true, 1, 2}, {true, 0, 3}, {false, 0, 3}, {false, 0, 3}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	again.Zone = zone(t, "Asia/Tokyo")
	if n, _, ok := s.memory.recall(&again); !ok || n != 3 {
		t.Errorf("recalls %d, %t of the zone loaded again; want 3", n, ok)
	}
}
