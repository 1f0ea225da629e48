//! The controller: watches four kinds and brings about what they say. Talks to the Kubernetes API, and to nothing else.
//!
//! Each object goes through observe → plan → apply → report. What is decided is in `plan`, which knows no client; what is written is
//! written in [`apply`] alone.

pub mod apply;
pub mod cache;
pub mod http;
pub mod job_template;
pub mod leadership;
pub mod line;
pub mod metrics;
pub mod observe;
pub mod queue;
pub mod reconcile;
pub mod repeats;
pub mod scopes;
pub mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use holdfast_crds::JobTemplate;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client, Config, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::plan::action::Event;
use crate::plan::job::Install;
use apply::{Writer, within};
use http::Health;
use leadership::{Candidate, Leadership};
use observe::Observer;
use queue::Queue;
use reconcile::Context;
use repeats::Repeats;
use scopes::{Heard, News, Scopes};
use watch::{Sinks, Unreadable};

/// This many objects are looked at side by side.
const SIDE_BY_SIDE: usize = 32;
/// What is under way at the end gets this long to finish.
const FAREWELL: Duration = Duration::from_secs(8);

/// Options of the controller.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Namespaces to watch, separated by commas. Empty: all.
    #[arg(long, env = "HOLDFAST_NAMESPACES", value_delimiter = ',', default_value = "")]
    pub namespaces: Vec<String>,
    /// Image of the workers: the controller's own.
    #[arg(long, env = "HOLDFAST_IMAGE")]
    pub image: String,
    /// When the kubelet pulls it: Always, IfNotPresent or Never.
    #[arg(long, env = "HOLDFAST_IMAGE_PULL_POLICY", default_value = "IfNotPresent",
          value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: String,
    /// Secrets to pull it with, in the namespaces of the policies, separated by commas.
    #[arg(long, env = "HOLDFAST_IMAGE_PULL_SECRETS", value_delimiter = ',', default_value = "")]
    pub image_pull_secrets: Vec<String>,
    /// Architectures that the image is built for, as nodes say theirs, separated by commas. Empty: any.
    #[arg(long, env = "HOLDFAST_IMAGE_ARCHITECTURES", value_delimiter = ',', default_value = "")]
    pub image_architectures: Vec<String>,
    /// What all Jobs are like, where no BackupStore, BackupPolicy or RestoreRequest says otherwise: a spec.jobTemplate, as JSON.
    #[arg(long, env = "HOLDFAST_JOB_TEMPLATE", value_name = "JSON", default_value = "{}")]
    pub job_template: String,
    /// Leave user and group of every Pod to the platform, as OpenShift wants it, where no object says them.
    #[arg(long, env = "HOLDFAST_OPENSHIFT")]
    pub openshift: bool,
    /// Name of the Lease that says which controller acts.
    #[arg(long, env = "HOLDFAST_LEASE_NAME", default_value = "holdfast-controller")]
    pub lease_name: String,
    /// Namespace of the Lease. Default: that of the service account, or of the kubeconfig's context.
    #[arg(long, env = "HOLDFAST_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// What this controller is called in the Lease and in events: the name of its Pod. Default: a name that nobody else has.
    #[arg(long, env = "HOLDFAST_IDENTITY")]
    pub identity: Option<String>,
    /// At most this many runs of backups are under way at a time; the others wait for their turn. 0: any number.
    #[arg(long, env = "HOLDFAST_MAX_CONCURRENT_RUNS", default_value_t = 20)]
    pub max_concurrent_runs: usize,
    /// Where /healthz, /readyz and /metrics are served. `[::]` is every address, IPv4 and IPv6.
    #[arg(long, env = "HOLDFAST_METRICS_ADDR", default_value = "[::]:8080")]
    pub metrics_addr: SocketAddr,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no cluster to be found.
    #[error("cannot find the cluster: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// No client can be made.
    #[error("cannot make a client: {0}")]
    Client(#[source] kube::Error),
    /// The cluster cannot be told from others.
    #[error("cannot tell which cluster this is: {0}")]
    Cluster(#[source] apply::Error),
    /// Nothing can be served.
    #[error("cannot serve on {address}: {source}")]
    Serve {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Signals cannot be heard.
    #[error("cannot listen for signals: {0}")]
    Signal(#[source] std::io::Error),
    /// What the chart says of Jobs cannot be meant.
    #[error("{0}")]
    JobTemplate(String),
    /// Another controller leads now.
    #[error("the lease could not be renewed: another controller may lead now")]
    LostLease,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Where it cannot start, or may not go on because another controller may lead.
///
/// Boxed, so that this library is compiled as one: a plain future would be compiled with the program that awaits it.
pub fn run(args: Args) -> LocalBoxFuture<'static, Result<(), Error>> {
    Box::pin(control(args))
}

async fn control(args: Args) -> Result<(), Error> {
    // Not by the parser of arguments, which would repeat it in the log.
    let template = job_template::read(&args.job_template).map_err(Error::JobTemplate)?;
    let mut config = Config::infer().await?;
    // Retries are ours: an attempt that fails is made again as a whole, and in time.
    config.default_retry = false;
    let lease_namespace = args.lease_namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(Error::Client)?;

    let health = Arc::new(Health::default());
    let mut serving = tokio::spawn(http::serve(args.metrics_addr, health.clone()));
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let stop = async move {
        tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
    };
    tokio::pin!(stop);

    let identity = args.identity.clone().filter(|i| !i.is_empty()).unwrap_or_else(own_identity);
    let mut candidate = Candidate::new(client.clone(), &lease_namespace, &args.lease_name, &identity);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity, lease = args.lease_name, "waiting to lead");
    let failed_to_serve = |result: Result<std::io::Result<()>, tokio::task::JoinError>| {
        let source = match result {
            Ok(Err(error)) => error,
            Ok(Ok(())) => std::io::Error::other("it ended"),
            Err(error) => std::io::Error::other(error),
        };
        Error::Serve { address: args.metrics_addr, source }
    };
    tokio::select! {
        () = candidate.acquire() => {}
        signal = &mut stop => { tracing::info!(signal, "ends"); return Ok(()) }
        result = &mut serving => return Err(failed_to_serve(result)),
    }
    tracing::info!(identity, "leads");
    health.leads.store(true, Ordering::SeqCst);

    let queue = Arc::new(Queue::closed());
    let lead = lead(client, &args, template, &identity, candidate.leadership(), health, queue.clone());
    tokio::pin!(lead);
    let outcome = tokio::select! {
        result = &mut lead => return result,
        () = candidate.keep() => Err(Error::LostLease),
        result = &mut serving => Err(failed_to_serve(result)),
        signal = &mut stop => { tracing::info!(signal, "ends"); Ok(()) }
    };
    queue.close();
    if outcome.is_ok() {
        // While the last attempts end, the lease is renewed for them.
        tokio::select! {
            _ = tokio::time::timeout(FAREWELL, &mut lead) => {}
            () = candidate.keep() => {}
        }
        candidate.release().await;
    }
    outcome
}

/// Watches and reconciles until the queue is closed and what is under way is done.
async fn lead(
    client: Client,
    args: &Args,
    template: JobTemplate,
    identity: &str,
    leadership: Leadership,
    health: Arc<Health>,
    queue: Arc<Queue>,
) -> Result<(), Error> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let cluster =
        within("look up namespace kube-system", namespaces.get("kube-system")).await.map_err(Error::Cluster)?;
    let install = Install {
        cluster_uid: cluster.uid().unwrap_or_default(),
        image: args.image.clone(),
        image_pull_policy: args.image_pull_policy.clone(),
        image_pull_secrets: named(&args.image_pull_secrets),
        architectures: named(&args.image_architectures),
        template,
        leave_ids_out: args.openshift,
        writer: Some(crate::task::Writer { id: format!("{:016x}", fastrand::u64(..)), since: jiff::Timestamp::now() }),
    };
    let reporter = Reporter { controller: "holdfast".to_owned(), instance: Some(identity.to_owned()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let writer = Writer::new(client.clone(), recorder, leadership);

    let (unreadable, found_unreadable) = mpsc::unbounded_channel();
    let (heard, watches) = mpsc::unbounded_channel();
    let limit = (args.max_concurrent_runs > 0).then_some(args.max_concurrent_runs);
    let counters = health.counters.clone();
    let sinks = Sinks { world: health.world.clone(), queue: queue.clone(), limit, unreadable, heard, counters };
    let scopes = match named(&args.namespaces) {
        namespaces if namespaces.is_empty() => vec![None],
        namespaces => namespaces.into_iter().map(Some).collect(),
    };
    watch::spawn(&client, &scopes, &sinks);
    tokio::spawn(tell_unreadable(writer.clone(), found_unreadable));
    tokio::spawn(open(Scopes::new(&scopes, &watch::KINDS), watches, queue.clone(), health.clone()));

    let context = Arc::new(Context {
        world: health.world.clone(),
        queue: queue.clone(),
        observer: Observer::new(client, health.world.clone(), install.clone(), limit),
        writer,
        install,
        counters: health.counters.clone(),
        repeats: Repeats::default(),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..SIDE_BY_SIDE {
        tasks.spawn(reconcile::work(context.clone()));
    }
    let resync = tokio::spawn(reconcile::resync(health.world.clone(), queue));
    while tasks.join_next().await.is_some() {}
    resync.abort();
    Ok(())
}

/// Lets the queue hand out what is in a namespace once everything in it has been listed.
async fn open(mut scopes: Scopes, mut watches: mpsc::UnboundedReceiver<Heard>, queue: Arc<Queue>, health: Arc<Health>) {
    while let Some(heard) = watches.recv().await {
        let News { opened, settled } = scopes.hear(&heard);
        if opened {
            tracing::info!(namespace = heard.scope.as_deref().unwrap_or("all"), "everything is listed");
            queue.open(heard.scope.as_deref());
        }
        if settled {
            health.synced.store(true, Ordering::SeqCst);
        }
    }
}

async fn tell_unreadable(writer: Writer, mut found: mpsc::UnboundedReceiver<Unreadable>) {
    while let Some(Unreadable { object, error }) = found.recv().await {
        let (kind, name) = (object.kind.clone(), object.name.clone());
        tracing::warn!(kind, name, namespace = object.namespace, error, "an object cannot be read and is left alone");
        let note = format!("this object cannot be read and is left alone: {error}");
        writer.publish(&object, &[Event::warning("Unreadable", "Read", note)]).await;
    }
}

/// The given names without empty ones: an empty option is no name.
fn named(names: &[String]) -> Vec<String> {
    names.iter().map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect()
}

/// A name that no other process has.
fn own_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{:08x}", host.trim(), fastrand::u32(..))
}
