package policy

import "strings"

// Nearest returns the candidate that name is most likely a slip of, or "", for those who look names up for people.
func Nearest(name string, candidates []string) string { return nearest(name, candidates) }

// nearest returns the candidate that name is most likely a slip of, or "".
func nearest(name string, candidates []string) string {
	if name == "" || len(name) > longest {
		return ""
	}
	best, least := "", max(1, len(name)/3)+1
	for _, c := range candidates {
		if strings.EqualFold(c, name) {
			return c
		}
		if len(c) > longest {
			continue
		}
		if d := distance(strings.ToLower(name), strings.ToLower(c), least); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the optimal string alignment distance (Damerau-Levenshtein), or at least limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	var rows [3][longest + 1]int
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			least = min(least, row[j])
		}
		if least >= limit {
			return limit
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// hint says what was likely meant instead of name, or what there is.
func hint(name string, candidates []string) string {
	if n := nearest(name, candidates); n != "" {
		return "did you mean " + quote(n) + "?"
	}
	switch n := len(candidates); {
	case n == 0 || n > 24:
		return ""
	case n == 1:
		return "there is only " + candidates[0]
	default:
		return "there are " + strings.Join(candidates[:n-1], ", ") + " and " + candidates[n-1]
	}
}
