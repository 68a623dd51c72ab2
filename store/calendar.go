package store

import "time"

// periodBounds gives the period of the calendar that now is in: from start until before end. A day begins with the first
// moment of its date in the zone, which isn't midnight where the clocks are put forward then, and may be the first of
// two; so days have 23 to 25 hours where the clocks change. nil is UTC.
func periodBounds(p Period, zone *time.Location, now time.Time) (start, end time.Time) {
	if zone == nil {
		zone = time.UTC
	}
	y, m, d := now.In(zone).Date()
	begins := func(n int) time.Time {
		switch p {
		case Week:
			monday := d - int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Weekday()+6)%7
			return dayBegins(y, m, monday+7*n, zone)
		case Month:
			return dayBegins(y, m+time.Month(n), 1, zone)
		case Year:
			return dayBegins(y+n, time.January, 1, zone)
		default:
			return dayBegins(y, m, d+n, zone)
		}
	}
	start, end = begins(0), begins(1)
	for n := 2; !end.After(now); n++ { // the clocks were put back over midnight: the date is yesterday's once more
		start, end = end, begins(n)
	}
	return start, end
}

// dayBegins is the first moment of a date in the zone, or of the next where the zone left it out. It walks the zone's
// offsets, since [time.Date] promises nothing for midnights that are twice or never.
func dayBegins(y int, m time.Month, d int, zone *time.Location) time.Time {
	midnight := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	t := midnight.Add(-36 * time.Hour).In(zone) // the day before, or the one before that
	for {
		_, offset := t.Zone()
		_, ends := t.ZoneBounds()
		at := midnight.Add(-time.Duration(offset) * time.Second).In(zone)
		if at.Before(t) {
			at = t
		}
		if ends.IsZero() || at.Before(ends) {
			return at
		}
		t = ends
	}
}
