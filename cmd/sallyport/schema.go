//go:build !small

package main

import (
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/config"
	"sallyport/limits"
)

func init() { nouns = append(nouns, schemaCommand) }

func schemaCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of configurations, for editors", GroupID: groupOther, Args: cobra.NoArgs,
		Example: `  sallyport schema > sallyport.schema.json
  sallyport schema --jq '.properties | keys'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := configurationSchema(cmd.Root())
			text, err := encodeJSON(s, false)
			if err != nil {
				return err
			}
			return a.print(result{human: text, machine: text, json: s})
		},
	}
}

// object is a JSON Schema, or a part of one.
type object = map[string]any

// configurationSchema describes the configurations of `node create` and `apply`. Keys are the flags of the commands that read them, so
// that it cannot say anything else than what is accepted.
func configurationSchema(root *cobra.Command) object {
	defs, properties := object{}, object{}
	add := func(key string, schema object) {
		properties[key] = schema
		if other := strings.ReplaceAll(key, "-", "_"); other != key {
			properties[other] = schema
		}
	}
	properties["version"] = object{"const": 1}
	properties["variables"] = object{
		"type": "object", "description": "values of $NAME and ${NAME}, unless the environment has others",
		"additionalProperties": object{"type": []string{"string", "number", "boolean"}},
	}
	properties["ticket"] = object{"type": "string", "description": "enroll with this ticket first, unless that was done"}
	add("ticket-file", object{"type": "string", "description": "the file of a ticket, or the name of a credential of systemd"})
	node := commandOf(root, "node create")
	for _, key := range config.NodeKeys() {
		switch f := node.Flags().Lookup(key); {
		case key == "name":
			properties["name"] = object{"type": []string{"string", "number"}, "description": "the node's name"}
		case key == "limits":
			add(key, limitsSchema())
		case f != nil && config.IsObject(key):
			add(key, object{"type": []string{"object", "string"}, "description": usageOf(f)})
		case f != nil:
			add(key, flagSchema(f))
		}
	}
	for _, s := range config.Sections(config.NodeCreate) {
		entry := entrySchema(commandOf(root, s.Command), s)
		name := s.Keys[1]
		defs[name] = entry
		for _, key := range s.Keys {
			add(key, sectionSchema(name, s.Named))
		}
	}
	return object{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Sallyport: what a node has", "type": "object",
		"properties": properties, "patternProperties": object{"^x-": object{}}, "additionalProperties": false, "$defs": defs,
	}
}

func commandOf(root *cobra.Command, line string) *cobra.Command {
	cmd, _, err := root.Find(strings.Fields(line))
	if err != nil {
		panic("no command " + line) // the sections name commands of this program
	}
	return cmd
}

// sectionSchema is what a section may be: entries by name, one entry, a name, or a list of those.
func sectionSchema(name string, named bool) object {
	ref := object{"$ref": "#/$defs/" + name}
	single := []any{ref}
	if named {
		byName := object{"type": "object", "additionalProperties": object{"anyOf": []any{ref, object{"type": "null"}}}}
		single = append(single, byName, object{"type": []string{"string", "number"}})
	}
	list := object{"type": "array", "items": object{"anyOf": single}}
	return object{"anyOf": append(append([]any{}, single...), list, object{"type": "null"})}
}

// entrySchema describes one entry: the flags of its command.
func entrySchema(cmd *cobra.Command, s config.Section) object {
	properties := object{}
	if s.Named {
		properties["name"] = object{"type": []string{"string", "number"}}
	}
	add := func(f *pflag.Flag) {
		if f.Hidden && f.Name != "expression" || f.Name == s.NameAs || cmd.Root().PersistentFlags().Lookup(f.Name) != nil {
			return
		}
		schema := flagSchema(f)
		properties[f.Name] = schema
		properties[strings.ReplaceAll(f.Name, "-", "_")] = schema
	}
	cmd.Flags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	if allow, ok := properties["allow"]; ok {
		properties["expression"] = allow
	}
	return object{"type": "object", "description": cmd.Short, "properties": properties, "additionalProperties": false}
}

// flagSchema describes the value of a flag.
func flagSchema(f *pflag.Flag) object {
	value := object{"type": []string{"string", "number", "boolean"}}
	switch f.Value.Type() {
	case "bool":
		value = object{"type": "boolean"}
	case "stringArray", "stringSlice":
		value = object{"anyOf": []any{object{"type": "string"}, object{"type": "array", "items": object{"type": "string"}}}}
	case "int", "uint16", "int64":
		value = object{"type": []string{"integer", "string"}}
	}
	value["description"] = usageOf(f)
	return value
}

// usageOf is a flag's help without the marks for its value.
func usageOf(f *pflag.Flag) string { return strings.ReplaceAll(f.Usage, "`", "") }

// limitsSchema describes the limits, by the names of the fields.
func limitsSchema() object {
	properties := object{}
	t := reflect.TypeFor[limits.Limits]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		kind := []string{"integer"}
		if t.Field(i).Type != reflect.TypeFor[int]() {
			kind = []string{"string", "integer"}
		}
		properties[name] = object{"type": kind}
	}
	return object{"type": "object", "description": "docs/limits.md", "properties": properties, "additionalProperties": false}
}
