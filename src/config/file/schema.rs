//! The JSON schema of a file, from the table of settings. Pure.

use serde_json::json;

use super::MOST_ROUTES;
use crate::config::settings::{self, Scope};

/// The JSON schema of a file, for editors: which keys there are, and what kind of value each has.
#[must_use]
pub fn schema() -> serde_json::Value {
    let settings = |scopes: &[Scope]| {
        let all = settings::all().into_iter().filter(|setting| scopes.contains(&setting.scope));
        all.map(|setting| {
            let mut schema = setting.schema;
            if let Some(schema) = schema.as_object_mut() {
                let text = format!("{}: {}", setting.help, setting.bounds);
                schema.insert(String::from("description"), text.into());
            }
            (setting.variable.to_lowercase(), schema)
        })
        .collect::<serde_json::Map<_, _>>()
    };
    let texts =
        json!({ "type": ["string", "array"], "items": { "type": "string" }, "minItems": 1 });
    let fields = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let name = json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$" });
    let with = |of: &serde_json::Value, text: &str| {
        let mut schema = of.clone();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert(String::from("description"), text.into());
        }
        schema
    };
    let path = json!({ "type": "string", "pattern": "^/" });
    let is_or_not = json!({ "type": "boolean" });
    let mut route = settings(&[Scope::Route]);
    let changes = json!({
        "type": "object",
        "description": "Fields of requests that are set and removed on their way to the application",
        "properties": {
            "set": with(&fields, "What the application gets in the place of what the client sent under these names"),
            "remove": with(&texts, "What of the client the application does not get"),
        },
        "additionalProperties": false,
    });
    route.extend([
        (
            String::from("name"),
            with(&name, "Its name in the log and in lists, which no other route has"),
        ),
        (
            String::from("host"),
            with(
                &texts,
                "The hosts that are asked for: app.example.com, *.example.com for all below",
            ),
        ),
        (String::from("path"), with(&path, "The path that is asked for")),
        (
            String::from("path_prefix"),
            with(&path, "The path that is asked for, or what it is behind"),
        ),
        (
            String::from("headers"),
            with(&fields, "Fields that a request has once, with these values"),
        ),
        (String::from("upgrade"), with(&is_or_not, "Whether it asks for an upgrade")),
        (
            String::from("upstream"),
            with(&name, "The name of its upstream; without it, that of the variables"),
        ),
        (
            String::from("strip_prefix"),
            with(&is_or_not, "Whether the application gets the path without path_prefix"),
        ),
        (String::from("request_headers"), changes),
    ]);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "CONFIG_FILE of elbows",
        "description": "Upstream groups and routes; the variables are the default route.",
        "type": "object",
        "properties": {
            "upstreams": {
                "type": "object",
                "description": "Endpoints that serve the same, by name, and settings of their routes",
                "propertyNames": name,
                "additionalProperties": {
                    "type": "object",
                    "properties": settings(&[Scope::Upstream, Scope::Route]),
                    "additionalProperties": false,
                },
            },
            "routes": {
                "type": "array",
                "description": "What requests have in common, and what holds for them",
                "maxItems": MOST_ROUTES,
                "items": {
                    "type": "object",
                    "properties": route,
                    "required": ["name"],
                    "additionalProperties": false,
                },
            },
        },
        "additionalProperties": false,
    })
}
