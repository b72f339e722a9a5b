//! CycloneDX 1.6, JSON. Source: ECMA-424, and its schema `bom-1.6.schema.json`.

use serde_json::{Value, json};

use super::{SbomSubject, TOOL, TOOL_VERSION, license::License, place, references, uuid};
use crate::{Inventory, Package};

/// The bill of materials of `subject`.
pub fn cyclonedx(inventory: &Inventory, subject: &SbomSubject) -> Value {
    let mut components = Vec::new();
    let mut contained = Vec::new();
    if let Some(distro) = &inventory.distro {
        let mut system = json!({
            "type": "operating-system",
            "bom-ref": "operating-system",
            "name": distro.id,
            "description": distro.name,
        });
        set(&mut system, "version", distro.version_id.as_deref());
        components.push(system);
        contained.push("operating-system".to_owned());
    }
    for (reference, package) in references(inventory) {
        components.push(component(&reference, package, subject));
        contained.push(reference);
    }
    contained.sort_unstable();
    let mut image = json!({ "type": "container", "bom-ref": IMAGE, "name": subject.display_name() });
    set(&mut image, "version", subject.digest.as_ref().map(dna::Digest::as_str));
    set(&mut image, "purl", subject.purl());
    let mut metadata = json!({
        "tools": { "components": [{ "type": "application", "name": TOOL, "version": TOOL_VERSION }] },
        "component": image,
    });
    set(&mut metadata, "timestamp", subject.created.map(|time| time.to_string()));
    let unknowns = inventory.unknowns.iter();
    let unknowns: Vec<_> =
        unknowns.map(|unknown| property("unknown", format!("{}: {}", unknown.place, unknown.why))).collect();
    let is_partial = !unknowns.is_empty();
    set(&mut metadata, "properties", is_partial.then_some(unknowns));
    let mut bill = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": [{ "ref": IMAGE, "dependsOn": contained }],
    });
    let incomplete = json!([{ "aggregate": "incomplete", "assemblies": [IMAGE] }]);
    set(&mut bill, "compositions", is_partial.then_some(incomplete));
    let number = format!("urn:uuid:{}", uuid(&bill));
    set(&mut bill, "serialNumber", Some(number));
    bill
}

fn component(reference: &str, package: &Package, subject: &SbomSubject) -> Value {
    let mut properties = vec![property("package-type", package.kind.purl_type())];
    if let Some(layer) = subject.layer(package) {
        properties.push(property("layer", layer.as_str()));
    }
    if let Some(architecture) = &package.architecture {
        properties.push(property("architecture", architecture.as_str()));
    }
    let mut component = json!({
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "purl": package.purl,
        "evidence": { "occurrences": [{ "location": place(package) }] },
        "properties": properties,
    });
    set(&mut component, "version", Some(package.version.as_str()).filter(|version| !version.is_empty()));
    let licenses = licenses(package);
    set(&mut component, "licenses", (!licenses.is_empty()).then_some(licenses));
    component
}

/// Either one expression or a list of single licenses: the schema allows no mixture.
fn licenses(package: &Package) -> Vec<Value> {
    let licenses: Vec<License> = package.licenses.iter().map(|text| License::of(text)).collect();
    if let [License::Expression(expression)] = licenses.as_slice() {
        return vec![json!({ "expression": expression })];
    }
    let single = |license: License| match license {
        License::Identifier(id) => json!({ "license": { "id": id } }),
        License::Expression(name) | License::Text(name) => json!({ "license": { "name": name } }),
    };
    licenses.into_iter().map(single).collect()
}

fn property(name: &str, value: impl Into<Value>) -> Value {
    json!({ "name": format!("{TOOL}:{name}"), "value": value.into() })
}

/// Adds a field that may be absent.
fn set(object: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let (Some(fields), Some(value)) = (object.as_object_mut(), value) {
        fields.insert(key.to_owned(), value.into());
    }
}

const IMAGE: &str = "image";
