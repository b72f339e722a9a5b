-- Which digests are one image, and what was verified of it. Times are milliseconds since 1970.

-- digest: of the platform's manifest. config: of its configuration; NULL where it is not known. first_at: when it was first seen in that
-- repository. document, packed, bytes: who vouches for it and what it was built from, as JSON by zstd; empty where nobody looked.
CREATE TABLE known_images (
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    platform TEXT NOT NULL,
    config TEXT,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    document TEXT NOT NULL,
    packed BYTEA NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (digest, repository)
);
CREATE INDEX known_images_repository ON known_images (repository, platform, first_at);
CREATE INDEX known_images_config ON known_images (config);
CREATE INDEX known_images_last_at ON known_images (last_at);

-- The image that an index is for a platform.
CREATE TABLE index_images (
    digest TEXT NOT NULL,
    platform TEXT NOT NULL,
    image TEXT NOT NULL,
    PRIMARY KEY (digest, platform, image)
);
CREATE INDEX index_images_image ON index_images (image);

-- Acts that somebody accepted for an image. id: SHA-256 of the statement that is signed. document, packed, bytes: the signed bundle, JSON by
-- zstd; whoever reads it verifies it, and believes nothing beside it.
CREATE TABLE overlays (
    id TEXT PRIMARY KEY NOT NULL,
    image TEXT NOT NULL,
    document TEXT NOT NULL,
    packed BYTEA NOT NULL,
    bytes BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    accepted_at BIGINT NOT NULL,
    accepted_by TEXT NOT NULL,
    revoked_at BIGINT,
    revoked_by TEXT,
    revoked_reason TEXT
);
CREATE INDEX overlays_expires_at ON overlays (expires_at);
CREATE INDEX overlays_accepted_at ON overlays (accepted_at);
