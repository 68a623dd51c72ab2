package policy

import "strconv"

// Service is the service that the setting stands in; nil for a setting elsewhere.
func (c *Check) Service() *Service { return c.unit.service }

// App is the app behind the sidecar of the service that the setting stands in; nil where there is none.
func (c *Check) App() *Service {
	if c.unit.service == nil {
		return nil
	}
	if app := c.load.service(c.unit.service.Name + appSuffix); app != nil {
		return app.service
	}
	return nil
}

// Listeners is the listeners that the setting holds for: the one that it stands in, or all of its gateway. There is none
// where they could not be read, or the setting stands elsewhere.
func (c *Check) Listeners() []*Listener {
	return Once(c, func() listenersByEntry {
		all := make(listenersByEntry)
		for _, g := range c.load.model.Gateways {
			all[&g.Entry] = g.Listeners
			for _, l := range g.Listeners {
				all[&l.Entry] = []*Listener{l}
			}
		}
		return all
	})[c.entry]
}

type listenersByEntry map[*Entry][]*Listener

// Item is the path of an item of a list, for [Check.Errorf].
func Item(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// Answers tells that no backend sees the route's requests: one of its settings answers them.
func (r *BoundRoute) Answers() bool {
	if len(r.Backends) > 0 {
		return false
	}
	for _, a := range Each[Answerer](r.Settings) {
		if a.Answers() {
			return true
		}
	}
	return false
}
