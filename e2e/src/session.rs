//! Shells that stay in Pods and run one program after another: to begin a process in a container takes the cluster many times what most
//! of these programs take. Talks to the cluster.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::cluster::cluster;
use crate::command::Ended;

/// Reads how many words a command has and how long its input is, then both; answers with its exit code and the lengths of its output and
/// error, then both.
const SHELL: &str = r#"
folder=$(mktemp -d) || exit
trap 'rm -rf "$folder"' EXIT
while read -r words bytes; do
  mapfile -d '' -n "$words" -t command
  head -c "$bytes" >"$folder/in"
  "${command[@]}" <"$folder/in" >"$folder/out" 2>"$folder/err"
  echo "$?" $(stat -c %s "$folder/out" "$folder/err")
  cat "$folder/out" "$folder/err"
done
"#;

/// A shell in a Pod.
struct Session {
    input: Box<dyn AsyncWrite + Send + Unpin>,
    output: Box<dyn AsyncBufRead + Send + Unpin>,
    /// Whether the shell or its Pod has ended.
    ended: Arc<AtomicBool>,
    /// Ends with this.
    _process: AttachedProcess,
}

/// By namespace and name of their Pods.
type Sessions = HashMap<(String, String), Vec<Session>>;

/// Shells that have nothing to do.
static IDLE: LazyLock<Mutex<Sessions>> = LazyLock::new(Mutex::default);

/// Runs a program in the first container of a Pod that has bash, with `input` on its standard input. A Pod where nothing can be run is a
/// program that did not end well.
pub fn run(namespace: &str, pod: &str, arguments: &[&str], input: &[u8]) -> Ended {
    let of = (namespace.to_owned(), pod.to_owned());
    let idle = || {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = idle.get_mut(&of)?;
        sessions.retain(|session| !session.ended.load(Ordering::Acquire));
        sessions.pop()
    };
    let run = async {
        let mut session = match idle() {
            Some(session) => session,
            None => Session::begin(namespace, pod).await.map_err(io::Error::other)?,
        };
        let ended = session.run(arguments, input).await?;
        io::Result::Ok((session, ended))
    };
    match cluster().block_on(run) {
        Ok((session, ended)) => {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).entry(of).or_default().push(session);
            ended
        }
        Err(error) => Ended { ok: false, stdout: Vec::new(), stderr: error.to_string() },
    }
}

impl Session {
    async fn begin(namespace: &str, pod: &str) -> Result<Self, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(cluster().client(), namespace);
        let asked = AttachParams::default().stdin(true).stdout(true).stderr(false);
        let mut process = pods.exec(pod, ["bash", "-c", SHELL], &asked).await?;
        let ended = Arc::new(AtomicBool::new(false));
        if let Some(status) = process.take_status() {
            let ended = ended.clone();
            tokio::spawn(async move {
                status.await;
                ended.store(true, Ordering::Release);
            });
        }
        let (input, output) = (process.stdin().expect("asked for"), process.stdout().expect("asked for"));
        let (input, output) = (Box::new(input), Box::new(BufReader::new(output)));
        Ok(Self { input, output, ended, _process: process })
    }

    async fn run(&mut self, arguments: &[&str], input: &[u8]) -> io::Result<Ended> {
        let mut asked = format!("{} {}\n", arguments.len(), input.len()).into_bytes();
        for argument in arguments {
            asked.extend_from_slice(argument.as_bytes());
            asked.push(0);
        }
        asked.extend_from_slice(input);
        self.input.write_all(&asked).await?;
        self.input.flush().await?;
        let mut line = String::new();
        self.output.read_line(&mut line).await?;
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<usize>().ok());
        let (Some(code), Some(out), Some(err)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return Err(io::Error::other("the shell in the Pod ended"));
        };
        let mut told = vec![0; out + err];
        self.output.read_exact(&mut told).await?;
        let mut stderr = String::from_utf8_lossy(&told.split_off(out)).into_owned();
        if code != 0 {
            let _ = write!(stderr, "it ended with {code}");
        }
        Ok(Ended { ok: code == 0, stdout: told, stderr })
    }
}
