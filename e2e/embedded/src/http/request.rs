//! From a request to its answer.

use super::Fault;
use super::Server;
use super::answer::Answer;
use super::path::{self, Objects, Path};
use super::watch::{self, Form, Watch};
use crate::api::kinds::Kind;
use crate::api::refusal::Refusal;
use crate::api::{DeleteOptions, Done, PatchKind, WriteOptions};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::{Method, Request, header};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The largest body that is read.
const LARGEST: usize = 3 << 20;

struct Asked {
    method: Method,
    query: HashMap<String, String>,
    agent: String,
    accept: String,
    content: String,
    body: Bytes,
}

impl Asked {
    fn text(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    fn yes(&self, name: &str) -> bool {
        matches!(self.text(name), "1" | "true")
    }

    fn options(&self) -> WriteOptions {
        let given = self.text("fieldManager");
        // As the real server does: what comes before the first slash of the user agent.
        let agent = self.agent.split('/').next().unwrap_or_default();
        let manager = if given.is_empty() { if agent.is_empty() { "unknown" } else { agent } } else { given };
        WriteOptions {
            manager: manager.to_owned(),
            dry_run: self.text("dryRun") == "All",
            field_validation: self.text("fieldValidation").to_owned(),
            force: self.yes("force"),
        }
    }

    fn value(&self) -> Result<Value, Refusal> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        if self.content.contains("protobuf") || self.content.contains("cbor") {
            return Err(Refusal::unsupported_media_type(&self.content));
        }
        let bad = |e: &dyn std::fmt::Display| Refusal::bad_request(format!("the body cannot be read: {e}"));
        // An apply is YAML, and JSON is, too; but JSON is read faster.
        match serde_json::from_slice(&self.body) {
            Ok(value) => Ok(value),
            Err(_) if self.content.contains("yaml") => serde_yaml::from_slice(&self.body).map_err(|e| bad(&e)),
            Err(e) => Err(bad(&e)),
        }
    }
}

/// Answers whoever the token in it belongs to; nothing when the connection is to break.
pub(super) async fn handle(server: &Server, request: Request<Incoming>) -> Option<Answer> {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
    let Some(user) = server.user(token) else { return Some(Refusal::unauthorized().into()) };
    answer(server, &user, request).await
}

/// Answers this user; nothing when the connection is to break.
pub(super) async fn answer<B: Body<Data = Bytes>>(server: &Server, user: &str, request: Request<B>) -> Option<Answer>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let header =
        |name: header::HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let own = parts.uri.path().starts_with("/embedded/");
    let fault = if own { None } else { server.strike(user, parts.method.as_str(), parts.uri.path()) };
    match fault {
        Some(Fault::Lose) => return None,
        Some(Fault::Refuse(code)) => return Some(Refusal::on_purpose(code).into()),
        Some(Fault::Delay(milliseconds)) => super::faults::wait(milliseconds).await,
        Some(Fault::LoseAnswer) | None => {}
    }
    let Ok(body) = Limited::new(body, LARGEST).collect().await else {
        return Some(Refusal::bad_request("the body is too large, or broke off").into());
    };
    let asked = Asked {
        method: parts.method.clone(),
        query: path::query(parts.uri.query()),
        agent: header(header::USER_AGENT),
        accept: header(header::ACCEPT),
        content: header(header::CONTENT_TYPE),
        body: body.to_bytes(),
    };
    let answer = match path::parse(parts.uri.path()) {
        Path::Other(steps) if own => knobs(server, &asked, user, &steps),
        Path::Other(steps) => about(server, &asked, &steps),
        Path::Objects(at) => objects(server, &asked, &at),
    };
    let answer = answer.unwrap_or_else(Answer::from);
    if let Answer::Json { code, body, .. } = &answer {
        if *code == 501 {
            tracing::error!(user, method = %asked.method, uri = %parts.uri, "not done here: {}", body["message"]);
        } else {
            tracing::debug!(user, method = %asked.method, uri = %parts.uri, code, "{}", body["message"]);
        }
    }
    (fault != Some(Fault::LoseAnswer)).then_some(answer)
}

/// What is no Kubernetes: `PUT /embedded/faults`, `POST /embedded/cut-watches`, `POST /embedded/forget`, for people and
/// tests.
fn knobs(server: &Server, asked: &Asked, user: &str, steps: &[String]) -> Result<Answer, Refusal> {
    if user != "admin" {
        return Err(Refusal::unauthorized());
    }
    match (asked.method.as_str(), steps.get(1).map(String::as_str)) {
        ("GET", Some("faults")) => {}
        ("PUT", Some("faults")) => {
            let rules = serde_json::from_slice(&asked.body).map_err(|e| Refusal::bad_request(e.to_string()))?;
            server.set_faults(rules);
        }
        ("POST", Some("cut-watches")) => server.cut_watches(),
        // Watches are told 410 and list anew.
        ("POST", Some("forget")) => {
            server.with(crate::api::Api::compact);
            server.cut_watches();
        }
        _ => return Err(Refusal::no_path()),
    }
    Ok(Answer::ok(json!(server.faults())))
}

/// Everything that is not about objects.
fn about(server: &Server, asked: &Asked, steps: &[String]) -> Result<Answer, Refusal> {
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    if asked.method == Method::POST && steps.first() == Some(&"apis") {
        return Err(Refusal::not_implemented(&steps.join("/")));
    }
    let found = server.with(|api| match steps[..] {
        ["version"] => Some(json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.0-embedded", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
        })),
        ["api"] => Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })),
        ["apis"] => Some(api.groups()),
        ["apis", group] => api.find_group(group),
        ["api", version] => api.resources("", version),
        ["apis", group, version] => api.resources(group, version),
        ["openapi", "v3"] => Some(api.openapi_index()),
        ["openapi", "v3", ref rest @ ..] => api.openapi(&rest.join("/")),
        _ => None,
    });
    if matches!(steps[..], ["healthz" | "livez" | "readyz"]) {
        return Ok(Answer::Text("ok".into()));
    }
    found.map(Answer::ok).ok_or_else(Refusal::no_path)
}

fn objects(server: &Server, asked: &Asked, at: &Objects) -> Result<Answer, Refusal> {
    let kind = server.with(|a| a.kind(&at.group, &at.version, &at.plural)).ok_or_else(Refusal::no_path)?;
    if at.plural == "pods" && at.subresource == "log" {
        return super::logs::answer(server, at, &asked.query);
    }
    let known = match at.subresource.as_str() {
        "" => true,
        "status" => kind.status,
        "scale" => kind.scale.is_some(),
        _ => false,
    };
    if !known {
        let what = format!("{} {}/{}", asked.method, at.plural, at.subresource);
        let name = at.name.clone().unwrap_or_default();
        return Err(if kind.custom() { Refusal::not_found(&kind, &name) } else { Refusal::not_implemented(&what) });
    }
    let namespace = at.namespace.clone().unwrap_or_default();
    let form = Form::of(&asked.accept);
    match (asked.method.as_str(), &at.name) {
        ("GET", Some(name)) if at.subresource == "scale" => {
            server.with(|a| a.get_scale(&kind, &namespace, name)).map(Answer::ok)
        }
        ("GET", Some(name)) if !asked.yes("watch") => {
            let object = server.with(|a| a.get(&kind, &namespace, name))?;
            Ok(Answer::ok(watch::one(&kind, object, form)))
        }
        ("GET", _) => list_or_watch(server, asked, at, kind, form),
        ("POST", None) => {
            let body = asked.value()?;
            let name = body.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
            let namespace = if namespace.is_empty() { name.to_owned() } else { namespace };
            server.with(|a| a.create(&kind, &namespace, body, &asked.options())).map(|d| done(&kind, d, form))
        }
        ("PUT", Some(name)) => {
            let body = asked.value()?;
            let wrote = server.with(|a| a.update(&kind, &namespace, name, &at.subresource, body, &asked.options()));
            wrote.map(|d| done(&kind, d, form))
        }
        ("PATCH", Some(name)) => {
            let how = match asked.content.split(';').next().unwrap_or_default() {
                "application/json-patch+json" => PatchKind::Json,
                "application/merge-patch+json" => PatchKind::Merge,
                "application/strategic-merge-patch+json" => PatchKind::Strategic,
                "application/apply-patch+yaml" => PatchKind::Apply,
                other => return Err(Refusal::unsupported_media_type(other)),
            };
            let body = asked.value()?;
            let options = if how == PatchKind::Apply {
                WriteOptions { manager: asked.text("fieldManager").to_owned(), ..asked.options() }
            } else {
                asked.options()
            };
            let wrote = server.with(|a| a.patch(&kind, &namespace, name, &at.subresource, (how, &body), &options));
            wrote.map(|d| done(&kind, d, form))
        }
        ("DELETE", Some(name)) => {
            let options = delete_options(asked)?;
            server.with(|a| a.delete(&kind, &namespace, name, &options)).map(|d| done(&kind, d, Form::Whole))
        }
        ("DELETE", None) => {
            let (options, selector) = (delete_options(asked)?, watch::selector_of(&asked.query)?);
            let items = server.with(|a| a.delete_collection(&kind, &namespace, &selector, &options))?;
            let revision = server.with(|a| a.revision());
            let page = crate::api::Page { revision, items, next: None, remaining: None };
            Ok(Answer::ok(watch::list(&kind, &page, Form::Whole)))
        }
        _ => Err(Refusal::method_not_allowed()),
    }
}

fn delete_options(asked: &Asked) -> Result<DeleteOptions, Refusal> {
    let mut options = DeleteOptions::parse(&asked.value()?);
    if let Ok(grace) = asked.text("gracePeriodSeconds").parse() {
        options.grace = Some(grace);
    }
    if !asked.text("propagationPolicy").is_empty() {
        asked.text("propagationPolicy").clone_into(&mut options.propagation);
    }
    options.dry_run |= asked.text("dryRun") == "All";
    Ok(options)
}

fn done(kind: &Kind, done: Done, form: Form) -> Answer {
    let body = match done.object["kind"].as_str() {
        Some("Status" | "Scale") => done.object,
        _ => watch::one(kind, done.object, form),
    };
    Answer::Json { code: if done.created { 201 } else { 200 }, body, warnings: done.warnings }
}

fn list_or_watch(server: &Server, asked: &Asked, at: &Objects, kind: Arc<Kind>, form: Form) -> Result<Answer, Refusal> {
    let mut query = asked.query.clone();
    if let Some(name) = &at.name {
        query.insert("fieldSelector".to_owned(), format!("metadata.name={name}"));
    }
    let selector = watch::selector_of(&query)?;
    if !asked.yes("watch") {
        let limit = asked.text("limit").parse().unwrap_or(0);
        let page = server.with(|a| a.list(&kind, at.namespace.as_deref(), &selector, limit, asked.text("continue")))?;
        return Ok(Answer::ok(watch::list(&kind, &page, form)));
    }
    let seconds = asked.text("timeoutSeconds").parse().unwrap_or(1800);
    let watch = Watch {
        kind,
        namespace: at.namespace.clone(),
        selector,
        revision: asked.text("resourceVersion").to_owned(),
        bookmarks: asked.yes("allowWatchBookmarks"),
        initial: asked.yes("sendInitialEvents"),
        limit: Duration::from_secs(seconds),
        form,
    };
    watch.start(server)
}
