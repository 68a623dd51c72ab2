package explain

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/legation/legation/policy"
)

// textWidth is how many columns a fact takes at most before its place is written after it.
const textWidth = 72

// line is a row of what people read: a topic, a text, and where it is written.
type line struct {
	topic, text string
	at          []policy.Pos
}

// Write shows an explanation to people. Colours are for terminals.
func (e *Explanation) Write(w io.Writer, colour bool) error {
	paint := func(style, s string) string { return s }
	if colour {
		paint = func(style, s string) string { return "\x1b[" + style + "m" + s + "\x1b[0m" }
	}
	var b strings.Builder
	style := "32"
	if !e.Answered() {
		style = "31"
	}
	b.WriteString(paint(style, e.headline()) + "\n\n")
	facts := e.matched()
	for _, f := range e.Facts {
		facts = append(facts, line{f.Topic, f.Text, f.At})
	}
	if cost := e.Calls.String(); cost != "" {
		facts = append(facts, line{topic: "cost", text: cost})
	}
	if e.OnlyHTTP2 != "" {
		facts = append(facts, line{topic: "http/1.1", text: "answers 400: " + e.OnlyHTTP2})
	}
	for _, u := range e.Undecided {
		facts = append(facts, line{topic: "undecided", text: u})
	}
	write(&b, facts, paint)
	if len(e.Others) > 0 {
		b.WriteString("\nwhy not\n")
		var others []line
		for _, o := range e.Others {
			others = append(others, line{"  " + o.Name, o.Why, []policy.Pos{o.At}})
		}
		write(&b, others, paint)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Answered tells whether a route or a listener of the policy answers, and it is no refusal.
func (e *Explanation) Answered() bool { return e.Answer.By != Nobody && e.Answer.By != Door }

func (e *Explanation) headline() string {
	a := e.Answer
	switch a.By {
	case Backend:
		return "the route " + e.Route.Name + " answers"
	case Itself:
		return fmt.Sprintf("the route %s answers by itself: %d", e.Route.Name, a.Status)
	case Preflight:
		return fmt.Sprintf("cors answers the preflight, for the route %s: %d", e.Route.Name, a.Status)
	case Redirect:
		return fmt.Sprintf("the listener answers: %d: %s", a.Status, a.Why)
	case Nobody:
		return "no route answers: 404: " + a.Why
	}
	if a.Status == 0 {
		return "no connection: " + a.Why
	}
	return fmt.Sprintf("refused by %s: %d: %s", a.Filter, a.Status, a.Why)
}

// matched is how the request came to its route.
func (e *Explanation) matched() []line {
	lines := []line{{"listener", e.Gateway + "/" + e.Listener, []policy.Pos{e.At}}}
	request := e.Method + " " + e.Host + e.Path
	if e.Normalized {
		request += " (in normal form)"
	}
	lines = append(lines, line{topic: "request", text: request})
	if e.VirtualHost != "" {
		lines = append(lines, line{topic: "host", text: e.VirtualHost})
	}
	if len(e.Hostnames) > 0 {
		lines = append(lines, line{topic: "hosts", text: "there is " + strings.Join(e.Hostnames, ", ")})
	}
	if e.Route != nil {
		lines = append(lines, line{"route", e.Route.Name, []policy.Pos{e.Route.At}}, line{topic: "because", text: strings.Join(e.Because, ", ")})
	}
	return lines
}

// String is what the calls are, in words; empty for none.
func (c Calls) String() string {
	plural := func(n int) string {
		if n == 1 {
			return "1 call to the companion"
		}
		return fmt.Sprintf("%d calls to the companion", n)
	}
	switch {
	case c.Before+c.After == 0:
		return ""
	case c.After == 0:
		text := plural(c.Before) + " before the request is sent on"
		if c.Spared {
			text += ", none for a token that Envoy accepts"
		}
		return text
	case c.Before == 0:
		return plural(c.After) + " after the answer"
	}
	return plural(c.Before) + " before the request is sent on, " + fmt.Sprint(c.After) + " after the answer"
}

// write aligns the lines; long texts push the place to where they end.
func write(b *strings.Builder, lines []line, paint func(style, s string) string) {
	topics, texts := 0, 0
	for _, l := range lines {
		topics = max(topics, utf8.RuneCountInString(l.topic))
		if n := utf8.RuneCountInString(l.text); n <= textWidth && len(l.at) > 0 {
			texts = max(texts, n)
		}
	}
	before := ""
	for _, l := range lines {
		topic := l.topic
		if topic == before {
			topic = ""
		}
		before = l.topic
		b.WriteString(paint("1", topic) + strings.Repeat(" ", topics-utf8.RuneCountInString(topic)+2) + l.text)
		if len(l.at) > 0 {
			b.WriteString(strings.Repeat(" ", max(0, texts-utf8.RuneCountInString(l.text))+2) + paint("2", places(l.at)))
		}
		b.WriteString("\n")
	}
}

// places is where something is written; of several in one file the name stands once.
func places(all []policy.Pos) string {
	var parts []string
	file := ""
	for _, at := range all {
		text := at.String()
		if at.File == file {
			text = strings.TrimPrefix(text, file)
		}
		file = at.File
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}
