# The operator and its workers: one static program, beside the PostgreSQL clients of several major versions.
#
# With a route to the PGDG repository:   cargo build --release … && docker build -t holdfast .
# From Debian's own suites only:         … --build-arg PGDG=false --build-arg POSTGRES_MAJORS="15 17 18 19"
# `make image` does either, and builds the program first.
ARG BASE=debian:trixie-slim
# `make image` keeps what does not change with the program as an image of its own, and names it here.
ARG RUNTIME=runtime

# A dump must be taken with a client at least as new as the server, and is best restored with one of the server's major.
# Of each major only the four programs that are run are kept, with the libraries that the base image lacks.
FROM ${BASE} AS clients
ARG POSTGRES_MAJORS="14 15 16 17 18 19"
ARG PGDG=true
RUN set -eu; \
    find /usr/lib /lib -name '*.so*' -printf '%f\n' | sort -u >/in-base; \
    export DEBIAN_FRONTEND=noninteractive; \
    mkdir -p /packages /out/usr/lib/postgresql/lib /out/etc/ld.so.conf.d; \
    apt-get update -q; \
    if [ "$PGDG" = true ]; then \
      # Debian's package brings PGDG's signing key and the script that adds its repository.
      apt-get install -qy --no-install-recommends ca-certificates postgresql-common; \
      /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y; \
    else \
      # For what the clients link to, in this suite's own packages; then the other suites, for the clients alone.
      apt-get install -qy --no-install-recommends postgresql-client; \
      mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sort -u | head -n 1); \
      for suite in bookworm trixie sid experimental; do \
        if grep -q "VERSION_CODENAME=$suite" /etc/os-release; then continue; fi; \
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"; \
      done >/etc/apt/sources.list.d/suites.list; \
      # A new major is in experimental first: what is there counts as what is in sid does, and the newer one is taken.
      printf '%s\n' 'Package: libpq5 postgresql-client-*' 'Pin: release a=experimental' 'Pin-Priority: 500' \
        >/etc/apt/preferences.d/suites; \
      apt-get update -q; \
    fi; \
    cd /packages; \
    for major in $POSTGRES_MAJORS; do \
      if [ "$PGDG" = true ]; then \
        apt-get install -qy --no-install-recommends "postgresql-client-$major"; \
      else \
        apt-get download "postgresql-client-$major"; \
      fi; \
    done; \
    if [ "$PGDG" != true ]; then \
      # The newest libpq serves the clients of all majors.
      apt-get download libpq5; \
      for package in *.deb; do dpkg-deb -x "$package" /; done; \
      ldconfig; \
    fi; \
    for major in $POSTGRES_MAJORS; do \
      mkdir -p "/out/usr/lib/postgresql/$major/bin"; \
      for program in psql pg_dump pg_dumpall pg_restore; do \
        cp "/usr/lib/postgresql/$major/bin/$program" "/out/usr/lib/postgresql/$major/bin/"; \
        ldd "/usr/lib/postgresql/$major/bin/$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' >>/linked; \
      done; \
    done; \
    sort -u /linked | while read -r library; do \
      grep -qxF "${library##*/}" /in-base || cp -L "$library" /out/usr/lib/postgresql/lib/; \
    done; \
    echo /usr/lib/postgresql/lib >/out/etc/ld.so.conf.d/postgresql-clients.conf

FROM ${BASE} AS runtime
COPY --from=clients /out/ /
# Each client is run once: one that misses a library is a failed build rather than a failed backup.
RUN set -eu; \
    if [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then \
      apt-get update -q; \
      DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends ca-certificates; \
      rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*; \
    fi; \
    ldconfig; \
    for program in /usr/lib/postgresql/*/bin/*; do "$program" --version; done

FROM ${RUNTIME}
ARG BINARY=target/x86_64-unknown-linux-gnu/release/holdfast
COPY ${BINARY} /usr/local/bin/holdfast
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/holdfast"]
