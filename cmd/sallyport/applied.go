package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/project"
)

// applied is what apply did, or would do.
type applied struct {
	Node string `json:"node"`
	admin.Applied
	// Settings are options of the node itself that differ.
	Settings []settingDifference `json:"settings,omitempty"`
	// States are how what was added or changed is now.
	States []admin.Resource `json:"states,omitempty"`

	isNew bool
}

// settingDifference is an option of a node itself that is not as a configuration wants it.
type settingDifference struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
	// Now tells that it is changed while the node runs; otherwise its next start does.
	Now bool `json:"now"`
}

// differs tells whether something is not as wanted.
func (d *applied) differs() bool { return d.isNew || len(d.Differences) > 0 || len(d.Settings) > 0 }

// failed tells whether something could not be done, or is known not to work.
func (d *applied) failed() bool {
	return d.Failed() || slices.ContainsFunc(d.States, func(r admin.Resource) bool { return isRefused(r.Status) })
}

// isRefused tells whether a resource is known not to work: the other end said so.
func isRefused(s resource.Status) bool { return s.State == resource.Down && s.Refused }

// lines is what happened, as a person would write it.
func (d *applied) lines() []string {
	var lines []string
	if d.isNew {
		lines = append(lines, "+ node "+d.Node)
	}
	for _, s := range d.Settings {
		line := fmt.Sprintf("~ node %s: %s", d.Node, s.Name)
		if !s.Now {
			line += " (at its next start)"
		}
		lines = append(lines, line)
	}
	for _, one := range d.Differences {
		line := one.String()
		if one.Error != "" {
			line += "\n    not done: " + one.Error
		}
		for _, s := range d.States {
			if s.Kind == one.Kind && s.Name == one.Name && one.Error == "" && s.State != resource.Up {
				line += "\n    " + stateText(s.Status)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// stateText is a state for a person.
func stateText(s resource.Status) string {
	text := string(s.State)
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}

// result is what apply prints.
func (d *applied) result(check bool) result {
	lines := d.lines()
	for _, name := range d.ByHand {
		lines = append(lines, "  "+name+": made by a command, left alone")
	}
	if !d.differs() {
		lines = append([]string{"nothing to change at the node " + d.Node}, lines...)
	} else if check {
		lines = append(lines, "nothing was changed (--check)")
	}
	text := strings.Join(lines, "\n") + "\n"
	return result{human: text, machine: text, json: d}
}

// log writes what happened to a node's log.
func (d *applied) log(log *slog.Logger) {
	for _, line := range d.lines() {
		level := slog.LevelInfo
		if strings.Contains(line, "\n") {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "configuration applied", "change", strings.ReplaceAll(line, "\n    ", "; "))
	}
	if !d.differs() {
		log.Info("configuration applied: nothing to change")
	}
}

// isMember tells whether an identity is a member of a ticket's project already, as far as this machine knows.
func (a *app) isMember(_ context.Context, t *project.Ticket, identityName string) bool {
	if t == nil {
		return false
	}
	h, err := a.home()
	if err != nil {
		return false
	}
	p, err := h.Known(project.ProjectFromTicket(t))
	if err != nil || p == nil {
		return false
	}
	named, err := a.dirOnce.NamedIdentity(identityName)
	if err != nil {
		return false
	}
	id, err := identity.ParseIdentifier(named.Identifier)
	return err == nil && h.IsMember(id, p)
}
