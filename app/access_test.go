package app

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// However many try, the log has a line a second.
func TestRefusalsAreToldSparingly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		r := refusals{log: slog.New(slog.NewTextHandler(&log, nil))}
		for range 10 {
			for range 100 {
				r.tell("refused", "192.0.2.1:1", errors.New("no"))
			}
			time.Sleep(time.Second)
		}
		if got := strings.Count(log.String(), "msg=refused"); got != 10 || !strings.Contains(log.String(), "untold=99") {
			t.Errorf("got %d lines, want 10 that tell of 99 others: %s", got, log.String())
		}
	})
}
