// A durable store for node-oidc-provider: SQLite of Node.js itself, WAL, synchronous=FULL, prepared statements.
// What is written in one turn of the event loop is one commit, and whoever wrote it waits for that.
import { DatabaseSync } from "node:sqlite";

const SCHEMA = `
  PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
  CREATE TABLE entity (
    model TEXT, id TEXT, grant_id TEXT, uid TEXT, user_code TEXT, expires_at INTEGER, payload TEXT NOT NULL,
    PRIMARY KEY (model, id)
  ) WITHOUT ROWID;
  CREATE INDEX of_grant ON entity (grant_id) WHERE grant_id IS NOT NULL;
  CREATE INDEX of_uid ON entity (model, uid) WHERE uid IS NOT NULL;
  CREATE INDEX of_user_code ON entity (model, user_code) WHERE user_code IS NOT NULL;
`;
const FRESH = "(expires_at IS NULL OR expires_at > ?)";
const seconds = () => Math.floor(Date.now() / 1000);

export class Store {
  #database;
  #statements = {};
  #group = null;

  constructor(file) {
    this.#database = new DatabaseSync(file);
    this.#database.exec(SCHEMA);
  }

  #prepared(sql) {
    return (this.#statements[sql] ??= this.#database.prepare(sql));
  }

  /** The first fresh payload of a model by one of its columns. */
  find(model, column, value) {
    const sql = `SELECT payload FROM entity WHERE model = ? AND ${column} = ? AND ${FRESH}`;
    const row = this.#prepared(sql).get(model, value, seconds());
    return row && JSON.parse(row.payload);
  }

  /** Keep a payload; resolves when it is on the disk. */
  write(model, id, payload, lifetime) {
    const expiresAt = lifetime === undefined ? null : seconds() + lifetime;
    return this.change(
      "INSERT OR REPLACE INTO entity VALUES (?, ?, ?, ?, ?, ?, ?)",
      model, id, payload.grantId ?? null, payload.uid ?? null, payload.userCode ?? null, expiresAt, JSON.stringify(payload),
    );
  }

  /** Run a statement in the next commit; resolves when that is on the disk. */
  change(sql, ...values) {
    const group = this.#group ??= this.#begin();
    group.changes.push([sql, values]);
    return group.committed;
  }

  #begin() {
    const changes = [];
    const committed = new Promise((resolve, reject) => setImmediate(() => {
      this.#group = null;
      try {
        this.#prepared("BEGIN IMMEDIATE").run();
        for (const [sql, values] of changes) this.#prepared(sql).run(...values);
        this.#prepared("COMMIT").run();
        resolve();
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
        reject(error);
      }
    }));
    return { changes, committed };
  }
}

/** The adapter that the library's documentation describes, over a store. */
export function adapterOf(store) {
  return (model) => ({
    find: async (id) => store.find(model, "id", id),
    findByUid: async (uid) => store.find(model, "uid", uid),
    findByUserCode: async (userCode) => store.find(model, "user_code", userCode),
    upsert: (id, payload, lifetime) => store.write(model, id, payload, lifetime),
    consume: (id) => store.change(
      "UPDATE entity SET payload = json_set(payload, '$.consumed', ?) WHERE model = ? AND id = ?", seconds(), model, id,
    ),
    destroy: (id) => store.change("DELETE FROM entity WHERE model = ? AND id = ?", model, id),
    revokeByGrantId: (grantId) => store.change("DELETE FROM entity WHERE grant_id = ? AND model != 'Grant'", grantId),
  });
}
