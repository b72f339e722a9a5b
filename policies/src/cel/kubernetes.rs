//! Shapes of the Kubernetes objects that expressions read: the fields of pods and containers that the API knows (core/v1), the rest
//! of an object open. A field that is newer than this table is an error when a rule is loaded, as a typo is; so the table is closed
//! only where rules are written about it.

use super::shape::{MAX_ITEMS, Shape};

/// `pod`: a pod's specification, of a pod or of the template in another kind.
pub(crate) fn pod_spec() -> Shape {
    let container = container();
    let containers = || Shape::list(container.clone(), MAX_CONTAINERS);
    Shape::object(
        "pod",
        false,
        [
            ("activeDeadlineSeconds", Shape::Int),
            ("affinity", Shape::Any),
            ("automountServiceAccountToken", Shape::Bool),
            ("containers", containers()),
            ("dnsConfig", Shape::Any),
            ("dnsPolicy", Shape::text()),
            ("enableServiceLinks", Shape::Bool),
            ("ephemeralContainers", containers()),
            ("hostAliases", Shape::list(Shape::Any, MAX_ITEMS)),
            ("hostIPC", Shape::Bool),
            ("hostNetwork", Shape::Bool),
            ("hostPID", Shape::Bool),
            ("hostUsers", Shape::Bool),
            ("hostname", Shape::text()),
            ("hostnameOverride", Shape::text()),
            (
                "imagePullSecrets",
                Shape::list(Shape::object("LocalObjectReference", false, [("name", NAME)]), MAX_ITEMS),
            ),
            ("initContainers", containers()),
            ("nodeName", NAME),
            ("nodeSelector", Shape::map(Shape::text(), MAX_ITEMS)),
            ("os", Shape::object("PodOS", false, [("name", NAME)])),
            ("overhead", Shape::map(Shape::text(), MAX_SMALL)),
            ("preemptionPolicy", Shape::text()),
            ("priority", Shape::Int),
            ("priorityClassName", NAME),
            ("readinessGates", Shape::list(Shape::Any, MAX_ITEMS)),
            ("resourceClaims", Shape::list(Shape::Any, MAX_ITEMS)),
            ("resources", resources()),
            ("restartPolicy", Shape::text()),
            ("runtimeClassName", NAME),
            ("schedulerName", NAME),
            ("schedulingGates", Shape::list(Shape::Any, MAX_ITEMS)),
            ("securityContext", pod_security_context()),
            ("serviceAccount", NAME),
            ("serviceAccountName", NAME),
            ("setHostnameAsFQDN", Shape::Bool),
            ("shareProcessNamespace", Shape::Bool),
            ("subdomain", NAME),
            ("terminationGracePeriodSeconds", Shape::Int),
            ("tolerations", Shape::list(Shape::Any, MAX_ITEMS)),
            ("topologySpreadConstraints", Shape::list(Shape::Any, MAX_ITEMS)),
            ("volumes", Shape::list(volume(), MAX_ITEMS)),
            ("workloadRef", Shape::Any),
        ],
    )
}

/// `container`: one container of any of a pod's lists.
pub(crate) fn container() -> Shape {
    let variable = Shape::object(
        "EnvVar",
        false,
        [("name", Shape::text()), ("value", Shape::String(MAX_LONG)), ("valueFrom", Shape::Any)],
    );
    let mount = Shape::object(
        "VolumeMount",
        false,
        [
            ("mountPath", Shape::text()),
            ("mountPropagation", Shape::text()),
            ("name", NAME),
            ("readOnly", Shape::Bool),
            ("recursiveReadOnly", Shape::text()),
            ("subPath", Shape::text()),
            ("subPathExpr", Shape::text()),
        ],
    );
    let port = Shape::object(
        "ContainerPort",
        false,
        [
            ("containerPort", Shape::Int),
            ("hostIP", Shape::text()),
            ("hostPort", Shape::Int),
            ("name", NAME),
            ("protocol", NAME),
        ],
    );
    Shape::object(
        "container",
        false,
        [
            ("args", Shape::list(Shape::String(MAX_LONG), MAX_ITEMS)),
            ("command", Shape::list(Shape::String(MAX_LONG), MAX_ITEMS)),
            ("env", Shape::list(variable, 1_000)),
            ("envFrom", Shape::list(Shape::Any, MAX_ITEMS)),
            ("image", Shape::String(1 << 10)),
            ("imagePullPolicy", Shape::text()),
            ("lifecycle", Shape::Any),
            ("livenessProbe", Shape::Any),
            ("name", NAME),
            ("ports", Shape::list(port, MAX_ITEMS)),
            ("readinessProbe", Shape::Any),
            ("resizePolicy", Shape::list(Shape::Any, MAX_SMALL)),
            ("resources", resources()),
            ("restartPolicy", Shape::text()),
            ("restartPolicyRules", Shape::list(Shape::Any, MAX_SMALL)),
            ("securityContext", security_context()),
            ("startupProbe", Shape::Any),
            ("stdin", Shape::Bool),
            ("stdinOnce", Shape::Bool),
            ("targetContainerName", NAME),
            ("terminationMessagePath", Shape::text()),
            ("terminationMessagePolicy", Shape::text()),
            ("tty", Shape::Bool),
            ("volumeDevices", Shape::list(Shape::Any, MAX_ITEMS)),
            ("volumeMounts", Shape::list(mount, MAX_ITEMS)),
            ("workingDir", Shape::text()),
        ],
    )
}

fn security_context() -> Shape {
    let names = || Shape::list(Shape::String(64), 128);
    Shape::object(
        "securityContext",
        false,
        [
            ("allowPrivilegeEscalation", Shape::Bool),
            ("appArmorProfile", profile()),
            ("capabilities", Shape::object("capabilities", false, [("add", names()), ("drop", names())])),
            ("privileged", Shape::Bool),
            ("procMount", Shape::text()),
            ("readOnlyRootFilesystem", Shape::Bool),
            ("runAsGroup", Shape::Int),
            ("runAsNonRoot", Shape::Bool),
            ("runAsUser", Shape::Int),
            ("seLinuxOptions", Shape::Any),
            ("seccompProfile", profile()),
            ("windowsOptions", Shape::Any),
        ],
    )
}

fn pod_security_context() -> Shape {
    let sysctl = Shape::object("Sysctl", false, [("name", Shape::text()), ("value", Shape::text())]);
    Shape::object(
        "pod.securityContext",
        false,
        [
            ("appArmorProfile", profile()),
            ("fsGroup", Shape::Int),
            ("fsGroupChangePolicy", Shape::text()),
            ("runAsGroup", Shape::Int),
            ("runAsNonRoot", Shape::Bool),
            ("runAsUser", Shape::Int),
            ("seLinuxChangePolicy", Shape::text()),
            ("seLinuxOptions", Shape::Any),
            ("seccompProfile", profile()),
            ("supplementalGroups", Shape::list(Shape::Int, MAX_ITEMS)),
            ("supplementalGroupsPolicy", Shape::text()),
            ("sysctls", Shape::list(sysctl, MAX_ITEMS)),
            ("windowsOptions", Shape::Any),
        ],
    )
}

fn profile() -> Shape {
    Shape::object("profile", false, [("localhostProfile", Shape::text()), ("type", NAME)])
}

fn resources() -> Shape {
    // Quantities are text or numbers.
    let quantities = || Shape::map(Shape::Any, MAX_SMALL);
    let claims = Shape::list(Shape::Any, MAX_SMALL);
    Shape::object("resources", false, [("claims", claims), ("limits", quantities()), ("requests", quantities())])
}

/// A volume: which sources there are changes with each version, so others may follow.
fn volume() -> Shape {
    let sources = [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "gitRepo",
        "glusterfs",
        "iscsi",
        "nfs",
        "persistentVolumeClaim",
        "photonPersistentDisk",
        "portworxVolume",
        "projected",
        "quobyte",
        "rbd",
        "scaleIO",
        "secret",
        "storageos",
        "vsphereVolume",
    ];
    let typed = [
        ("name", NAME),
        ("hostPath", Shape::object("hostPath", false, [("path", Shape::text()), ("type", NAME)])),
        ("image", Shape::object("image", false, [("pullPolicy", NAME), ("reference", Shape::text())])),
    ];
    Shape::object("volume", true, typed.into_iter().chain(sources.map(|source| (source, Shape::Any))))
}

/// `object`, `oldObject`, `namespaceObject`: any object; of its metadata the fields are known.
pub(crate) fn object() -> Shape {
    let texts = || Shape::map(Shape::text(), MAX_ITEMS);
    let metadata = Shape::object(
        "metadata",
        false,
        [
            ("annotations", Shape::map(Shape::String(MAX_LONG), MAX_ITEMS)),
            ("creationTimestamp", Shape::text()),
            ("deletionGracePeriodSeconds", Shape::Int),
            ("deletionTimestamp", Shape::text()),
            ("finalizers", Shape::list(Shape::text(), MAX_ITEMS)),
            ("generateName", NAME),
            ("generation", Shape::Int),
            ("labels", texts()),
            ("managedFields", Shape::list(Shape::Any, MAX_ITEMS)),
            ("name", NAME),
            ("namespace", NAME),
            ("ownerReferences", Shape::list(Shape::Any, MAX_ITEMS)),
            ("resourceVersion", NAME),
            ("selfLink", Shape::text()),
            ("uid", NAME),
        ],
    );
    Shape::object("object", true, [("apiVersion", NAME), ("kind", NAME), ("metadata", metadata)])
}

/// `request`: as in ValidatingAdmissionPolicy.
pub(crate) fn request() -> Shape {
    let kind = |version: &'static str, kind: &'static str| {
        Shape::object("request", false, [("group", NAME), (version, NAME), (kind, NAME)])
    };
    let user = Shape::object(
        "userInfo",
        false,
        [
            ("extra", Shape::map(Shape::Any, MAX_ITEMS)),
            ("groups", Shape::list(Shape::text(), MAX_ITEMS)),
            ("uid", NAME),
            ("username", Shape::text()),
        ],
    );
    Shape::object(
        "request",
        false,
        [
            ("dryRun", Shape::Bool),
            ("kind", kind("version", "kind")),
            ("name", NAME),
            ("namespace", NAME),
            ("operation", NAME),
            ("resource", kind("version", "resource")),
            ("subResource", NAME),
            ("uid", NAME),
            ("userInfo", user),
        ],
    )
}

const NAME: Shape = Shape::String(253);
/// As many as fit: an object has at most 3 MiB, but nobody runs a pod of hundreds.
const MAX_CONTAINERS: u64 = 100;
const MAX_SMALL: u64 = 32;
/// Bytes of an argument or a value.
const MAX_LONG: u64 = 32 << 10;
