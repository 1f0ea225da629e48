// Says what the API server of the release in go.mod would refuse of definitions, by the code that it runs when one is created.
package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

func main() {
	refused := false
	for _, file := range os.Args[1:] {
		told, err := refusals(file)
		if err != nil {
			told = append(told, err.Error())
		}
		for _, one := range told {
			fmt.Printf("%s: %s\n", file, one)
			refused = true
		}
	}
	if refused || len(os.Args) == 1 {
		os.Exit(1)
	}
}

func refusals(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	var written v1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &written); err != nil {
		return nil, err
	}
	scheme.Default(&written)
	var read apiextensions.CustomResourceDefinition
	if err := scheme.Convert(&written, &read, nil); err != nil {
		return nil, err
	}
	var told []string
	for _, one := range validation.ValidateCustomResourceDefinition(context.Background(), &read) {
		told = append(told, one.Error())
	}
	return told, nil
}
