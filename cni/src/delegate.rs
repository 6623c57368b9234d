//! Another plugin that gives the addresses: found in `CNI_PATH`, run in the host's namespace with
//! the whole configuration, bounded in time, and run again with DEL when something fails.

use crate::{
    conf::{Conf, Ipam},
    env::{Environment, Verb},
    error::{CniError, Code},
    record::DelegateMark,
    spec::AddResult,
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// For one call; a DHCP delegate waits for a server.
const CALL: Duration = Duration::from_secs(60);
/// Longest answer, in bytes.
const LONGEST: u64 = 1 << 20;

/// How the delegate of a configuration is called again; `None` when there is none.
pub fn mark(conf: &Conf, env: &Environment) -> Option<DelegateMark> {
    let Ipam::Delegate(plugin) = &conf.ipam else {
        return None;
    };
    let args: Vec<_> = env
        .args
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Some(DelegateMark {
        plugin: plugin.clone(),
        path: env.path.clone(),
        config: conf.whole.clone(),
        container_id: env.container_id.clone(),
        args: args.join(";"),
    })
}

/// Calls the delegate; ADD returns its result.
pub async fn call(
    mark: &DelegateMark,
    verb: Verb,
    netns: Option<&Path>,
    ifname: &str,
) -> Result<AddResult, CniError> {
    let doing = format!("calling the plugin {} with {}", mark.plugin, verb.as_str());
    let program = find(mark).ok_or_else(|| {
        let folders: Vec<_> = mark.path.iter().map(|p| p.display().to_string()).collect();
        let details = format!(
            "it is in none of the folders of CNI_PATH [{}]",
            folders.join(" ")
        );
        CniError::new(Code::InvalidConfig, doing.clone(), details)
    })?;
    let path = std::env::join_paths(&mark.path).unwrap_or_default();
    let mut child = Command::new(&program)
        .env("CNI_COMMAND", verb.as_str())
        .env("CNI_CONTAINERID", &mark.container_id)
        .env("CNI_NETNS", netns.map(Path::as_os_str).unwrap_or_default())
        .env("CNI_IFNAME", ifname)
        .env("CNI_ARGS", &mark.args)
        .env("CNI_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| CniError::internal(doing.clone(), e))?;
    let config =
        serde_json::to_vec(&mark.config).map_err(|e| CniError::internal(doing.clone(), e))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let exchange = async {
        if let Some(mut input) = input {
            // a plugin that does not read (VERSION) closes early
            let _ = input.write_all(&config).await;
        }
        let mut text = Vec::new();
        if let Some(output) = output {
            output.take(LONGEST).read_to_end(&mut text).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, text))
    };
    let (status, text) = match timeout(CALL, exchange).await {
        Ok(done) => done.map_err(|e| CniError::internal(doing.clone(), e))?,
        Err(_) => {
            let details = format!("no answer within {} s; it was ended", CALL.as_secs());
            return Err(CniError::new(Code::TryAgainLater, doing, details));
        }
    };
    let json: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    if !status.success() {
        let said = json["msg"].as_str().unwrap_or("it says nothing").to_owned();
        let details = json["details"].as_str().unwrap_or_default();
        let code = if json["code"] == 11 {
            Code::TryAgainLater
        } else {
            Code::Internal
        };
        return Err(CniError::new(
            code,
            doing,
            format!("{said} {details}").trim().to_owned(),
        ));
    }
    if verb != Verb::Add {
        return Ok(AddResult::default());
    }
    AddResult::parse(&json).map_err(|e| CniError::new(Code::Decode, doing, e))
}

fn find(mark: &DelegateMark) -> Option<PathBuf> {
    mark.path
        .iter()
        .map(|folder| folder.join(&mark.plugin))
        .find(|file| file.is_file())
}
