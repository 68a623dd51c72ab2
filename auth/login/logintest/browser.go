package logintest

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// Browser is a Chromium without a window. It believes every certificate.
type Browser struct {
	t   testing.TB
	ctx context.Context
}

// Tab is a tab of a browser: its tabs share cookies.
type Tab struct {
	t   testing.TB
	ctx context.Context
}

// patience bounds a whole test with a browser.
const patience = 90 * time.Second

// StartBrowser starts the Chromium that LEGATION_CHROMIUM names, or PATH has; the test is skipped where there is none.
func StartBrowser(t testing.TB) *Browser {
	t.Helper()
	path := findChromium()
	if path == "" {
		t.Skip("no Chromium: name one in LEGATION_CHROMIUM, or install the package chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.WindowSize(800, 600),
		chromedp.IgnoreCertErrors,
		chromedp.Flag("no-proxy-server", true),
	)
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses root, as in containers
	}
	timed, cancelTimed := context.WithTimeout(context.Background(), patience)
	allocator, cancelAllocator := chromedp.NewExecAllocator(timed, options...)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		cancel()
		cancelAllocator()
		cancelTimed()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return &Browser{t, ctx}
}

func findChromium() string {
	if path := os.Getenv("LEGATION_CHROMIUM"); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// Open opens a tab and goes there.
func (b *Browser) Open(url string) *Tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	tab := &Tab{b.t, ctx}
	tab.Go(url)
	return tab
}

// Cookies are what the browser sends to a URL.
func (t *Tab) Cookies(url string) []*network.Cookie {
	t.t.Helper()
	kept, err := chromedp.Call(t.ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{url}})
	if err != nil {
		t.t.Fatal(err)
	}
	return kept.Cookies
}

// Go types a URL into the address bar.
func (t *Tab) Go(url string) {
	t.t.Helper()
	t.do(chromedp.Navigate(url))
}

// Click clicks on what the selector names, and waits for the page that follows.
func (t *Tab) Click(selector string) {
	t.t.Helper()
	if _, err := chromedp.RunResponse(t.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		t.t.Fatalf("click on %s: %v", selector, err)
	}
}

// LogIn fills in the provider's form.
func (t *Tab) LogIn(user, password string) {
	t.t.Helper()
	t.do(chromedp.SendKeys(chromedp.CSS("#user"), user))
	t.do(chromedp.SendKeys(chromedp.CSS("#password"), password))
	t.Click("#submit")
}

// URL is what the address bar shows.
func (t *Tab) URL() string {
	t.t.Helper()
	return run(t, chromedp.Location())
}

// Text is what the page shows.
func (t *Tab) Text() string {
	t.t.Helper()
	return run(t, chromedp.Text(chromedp.CSS("body")))
}

// Script runs a script, awaits its promise and returns the text that it gives.
func (t *Tab) Script(script string) string {
	t.t.Helper()
	return run(t, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
}

// Shoot writes a screenshot to /tmp/login-NAME.png when LEGATION_SCREENSHOTS is set.
func (t *Tab) Shoot(name string) {
	t.t.Helper()
	if os.Getenv("LEGATION_SCREENSHOTS") == "" {
		return
	}
	png := run(t, chromedp.CaptureScreenshot())
	if err := os.WriteFile("/tmp/login-"+name+".png", png, 0o600); err != nil {
		t.t.Error(err)
	}
}

func (t *Tab) do(action chromedp.Action[chromedp.Void]) {
	t.t.Helper()
	run(t, action)
}

func run[T any](t *Tab, action chromedp.Action[T]) T {
	t.t.Helper()
	v, err := chromedp.Run(t.ctx, action)
	if err != nil {
		t.t.Fatal(err)
	}
	return v
}
