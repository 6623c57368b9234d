// chart renders a Helm chart as helm template does, with Helm's own engine and none of its command line,
// which takes minutes to build: chart VERSION NAMESPACE CHART KEY=VALUE...
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/strvals"
)

func render(version, namespace, folder string, settings []string) (map[string]string, error) {
	loaded, err := loader.Load(folder)
	if err != nil {
		return nil, err
	}
	values := map[string]interface{}{}
	for _, setting := range settings {
		if err := strvals.ParseInto(setting, values); err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	if capabilities.KubeVersion.Version = "v" + version; !chartutil.IsCompatibleRange(loaded.Metadata.KubeVersion, "v"+version) {
		return nil, fmt.Errorf("the chart is for Kubernetes %s and not for %s", loaded.Metadata.KubeVersion, version)
	}
	release := chartutil.ReleaseOptions{Name: "dtn", Namespace: namespace, IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(loaded, values, release, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(loaded, all)
}

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: chart VERSION NAMESPACE CHART KEY=VALUE...")
		os.Exit(2)
	}
	files, err := render(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(files[name]) != "" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Printf("---\n# %s\n%s\n", name, files[name])
	}
}
