// Renders conversations with a template of text/template, with the values that Ollama gives to a template.
//
// Reads {"templates": [{"source": ..., "conversations": [[{"role": ..., "content": ...}]]}]} from standard input, and
// writes the rendered texts as a list of lists.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type job struct {
	Source        string      `json:"source"`
	Conversations [][]message `json:"conversations"`
}

// joined returns the messages with neighbours of one role made into one, and the text of all system messages.
func joined(messages []message) ([]message, string) {
	var found []message
	var system []string
	for _, each := range messages {
		if each.Role == "system" {
			system = append(system, each.Content)
		}
		if last := len(found) - 1; last >= 0 && found[last].Role == each.Role {
			found[last].Content += "\n\n" + each.Content
		} else {
			found = append(found, each)
		}
	}
	return found, strings.Join(system, "\n\n")
}

func main() {
	var given struct {
		Templates []job `json:"templates"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	var all [][]string
	for _, each := range given.Templates {
		parsed := template.Must(template.New("").Option("missingkey=zero").Parse(each.Source))
		texts := []string{}
		for _, conversation := range each.Conversations {
			messages, system := joined(conversation)
			var written bytes.Buffer
			values := map[string]any{"Messages": messages, "System": system, "Response": ""}
			if err := parsed.Execute(&written, values); err != nil {
				panic(err)
			}
			texts = append(texts, written.String())
		}
		all = append(all, texts)
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		panic(err)
	}
}
