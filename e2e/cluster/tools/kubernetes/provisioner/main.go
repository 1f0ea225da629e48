// Provisioner gives each claim of the storage class a folder of the node, and removes the folder with the claim:
// what kind's storage class does, so that tests need not know which cluster they run on. It lives in this module
// because client-go is built here already.
//
//	provisioner KUBECONFIG NODE FOLDER
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	provisionerName = "holdfast.dev/hostpath"
	selectedNode    = "volume.kubernetes.io/selected-node"
	provisionedBy   = "pv.kubernetes.io/provisioned-by"
)

type provisioner struct {
	client  kubernetes.Interface
	factory informers.SharedInformerFactory
	node    string
	folder  string
	wake    chan struct{}
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: provisioner KUBECONFIG NODE FOLDER")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	p := &provisioner{
		client:  client,
		factory: informers.NewSharedInformerFactory(client, 0),
		node:    os.Args[2],
		folder:  os.Args[3],
		wake:    make(chan struct{}, 1),
	}
	p.run(context.Background())
}

// Every change of a claim, a volume or a class leads to one pass over all of them: there are never many here.
func (p *provisioner) run(ctx context.Context) {
	changed := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.changed() },
		UpdateFunc: func(any, any) { p.changed() },
		DeleteFunc: func(any) { p.changed() },
	}
	core, storage := p.factory.Core().V1(), p.factory.Storage().V1()
	for _, informer := range []cache.SharedIndexInformer{
		core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(), storage.StorageClasses().Informer(),
	} {
		if _, err := informer.AddEventHandler(changed); err != nil {
			log.Fatal(err)
		}
	}
	p.factory.Start(ctx.Done())
	p.factory.WaitForCacheSync(ctx.Done())
	for range p.wake {
		if err := p.pass(ctx); err != nil {
			log.Print(err)
			time.AfterFunc(time.Second, p.changed)
		}
	}
}

func (p *provisioner) changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *provisioner) pass(ctx context.Context) error {
	classes, core := map[string]*storagev1.StorageClass{}, p.client.CoreV1()
	listed, err := p.client.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range listed.Items {
		if class := &listed.Items[i]; class.Provisioner == provisionerName {
			classes[class.Name] = class
		}
	}
	all, err := core.PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range all.Items {
		claim := &all.Items[i]
		if claim.Spec.StorageClassName == nil || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
			continue
		}
		if class := classes[*claim.Spec.StorageClassName]; class != nil && claim.Annotations[selectedNode] == p.node {
			if err := p.provide(ctx, claim, class); err != nil {
				return err
			}
		}
	}
	volumes, err := core.PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range volumes.Items {
		volume := &volumes.Items[i]
		ours := volume.Annotations[provisionedBy] == provisionerName
		released := volume.Status.Phase == corev1.VolumeReleased || volume.Status.Phase == corev1.VolumeFailed
		if ours && released && volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			if err := p.remove(ctx, volume); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *provisioner) provide(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(p.folder, name)
	// Any user may write: a Pod that may not run as root owns nothing here, and the kubelet sets no group on a hostPath.
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      claim.Spec.Resources.Requests,
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			StorageClassName:              class.Name,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: path},
			},
			ClaimRef: &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node},
				}}}},
			}},
		},
	}
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("volume for %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}

func (p *provisioner) remove(ctx context.Context, volume *corev1.PersistentVolume) error {
	if filepath.Dir(volume.Spec.HostPath.Path) != p.folder {
		return fmt.Errorf("volume %s lies outside %s: not removed", volume.Name, p.folder)
	}
	if err := os.RemoveAll(volume.Spec.HostPath.Path); err != nil {
		return err
	}
	err := p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
