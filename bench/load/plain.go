package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// plain asks over HTTP/1.1, one request after the other. 429 is a refusal, 200 passes, all else failed.
func (l *line) plain(ctx context.Context, nc net.Conn) error {
	defer nc.Close()
	end := context.AfterFunc(ctx, func() { _ = nc.SetReadDeadline(time.Now().Add(drain)) })
	defer end()
	in := bufio.NewReaderSize(nc, 8<<10)
	var request []byte
	for ctx.Err() == nil {
		number, ok := l.run.claim()
		if !ok {
			return nil
		}
		request = l.run.o.Plain(request[:0], number)
		start := time.Now()
		_, err := nc.Write(request)
		var status int
		if err == nil {
			status, err = readResponse(in)
		}
		switch {
		case err != nil && ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			l.broke(1, err)
			return err
		}
		l.takeStatus(status, number, start)
	}
	return nil
}

func (l *line) takeStatus(status int, number uint64, start time.Time) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch status {
	case 200:
		l.judged(Allowed, number, start, now)
	case 429:
		l.judged(Refused, number, start, now)
	default:
		l.result.fail(fmt.Sprintf("http status %d", status), 1)
		l.result.Told.Add(now.Sub(start))
	}
}

var (
	contentLength = []byte("content-length:")
	errResponse   = errors.New("not a response of HTTP/1.1 with a content-length")
)

// readResponse reads one response, which has to have a content-length.
func readResponse(in *bufio.Reader) (status int, err error) {
	size := -1
	for first := true; ; first = false {
		text, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		switch {
		case first && len(text) < len("HTTP/1.1 200"):
			return 0, errResponse
		case first:
			if status, err = strconv.Atoi(string(text[9:12])); err != nil {
				return 0, errResponse
			}
		case len(text) <= 2:
			if size < 0 {
				return 0, errResponse
			}
			_, err = in.Discard(size)
			return status, err
		case len(text) > len(contentLength) && bytes.EqualFold(text[:len(contentLength)], contentLength):
			if size, err = strconv.Atoi(string(bytes.TrimSpace(text[len(contentLength):]))); err != nil {
				return 0, errResponse
			}
		}
	}
}
