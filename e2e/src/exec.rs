//! Programs run in Pods, as `kubectl exec` runs them, without a process of its own for each. Talks to the cluster.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::cluster::cluster;
use crate::command::Ended;

/// Runs a program in a Pod's first container to its end, with `input` on its standard input. A Pod where nothing can be run is a program
/// that did not end well.
pub fn exec(namespace: &str, pod: &str, arguments: &[&str], input: &[u8]) -> Ended {
    cluster().block_on(ended(namespace, pod, arguments, input)).unwrap_or_else(|error| Ended {
        ok: false,
        stdout: Vec::new(),
        stderr: error.to_string(),
    })
}

async fn ended(namespace: &str, pod: &str, arguments: &[&str], input: &[u8]) -> Result<Ended, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(cluster().client(), namespace);
    let asked = AttachParams::default().stdin(!input.is_empty()).stdout(true).stderr(true);
    let mut process = pods.exec(pod, arguments.iter().copied(), &asked).await?;
    let (stdin, status) = (process.stdin(), process.take_status());
    let (stdout, stderr) = (process.stdout(), process.stderr());
    // Written beside the reading: a program that answers before it has read everything would block both.
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that ends without reading it all says why by its status.
            if stdin.write_all(input).await.is_ok() {
                stdin.shutdown().await.ok();
            }
        }
    };
    let (stdout, stderr, ()) = tokio::join!(all_of(stdout), all_of(stderr), write);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let ok = status.as_ref().is_some_and(|status| status.status.as_deref() == Some("Success"));
    let mut stderr = String::from_utf8_lossy(&stderr).into_owned();
    if !ok {
        let why = status.and_then(|status| status.message).unwrap_or_else(|| "the connection to it ended".to_owned());
        stderr.push_str(&why);
    }
    Ok(Ended { ok, stdout, stderr })
}

async fn all_of(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut stream) = stream {
        // What came before the connection ended is told; that it ended is in the status, or in there being none.
        stream.read_to_end(&mut all).await.ok();
    }
    all
}
