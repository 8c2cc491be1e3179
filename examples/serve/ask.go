package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
)

// post asks a server one question. An answer without states has the status and the text.
func post(ctx context.Context, client *http.Client, url string, q question) (reply, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return reply{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/predict", bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return reply{}, fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	var a reply
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// ask sends many questions at once, as the clients of a short run.
func ask(ctx context.Context, e *example.Env, url string) error {
	const n = 100
	connections := &http.Transport{MaxIdleConnsPerHost: n}
	defer connections.CloseIdleConnections() // the server's end would wait for them
	client := &http.Client{Transport: connections}
	var clients sync.WaitGroup
	replies, errs := make([]reply, n), make([]error, n)
	for i := range n {
		clients.Go(func() {
			replies[i], errs[i] = post(ctx, client, url, question{[]float64{float64(i) / n, 1}, []float64{0, 1, 2}})
		})
	}
	clients.Wait()
	largest := 0
	for i, r := range replies {
		if errs[i] != nil {
			return errs[i]
		}
		largest = max(largest, r.Batch)
	}
	e.Found("answers", n)
	e.Found("largest_batch", float64(largest))
	return nil
}
