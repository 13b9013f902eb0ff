// Blink's ledger library on tellerd's database: one JSON command per line in, one JSON answer per line out.
//
// The schema of the legs is Blink's (blink-contract.md 2.2, GaloyMoney/blink services/ledger/schema.ts); medici
// and mongoose do all reading and writing. Answers are MongoDB's canonical extended JSON, so types survive.
"use strict";

const readline = require("node:readline");
const mongoose = require("mongoose");
const { EJSON } = mongoose.mongo.BSON;

mongoose.set("autoIndex", false); // as Blink does: indexes are made by migrations
mongoose.set("autoCreate", false);

const { Book, setTransactionSchema } = require("medici");

const SIX_HOURS_S = 6 * 60 * 60; // Blink's admin reads; its core keeps medici's default, a day

const legSchema = new mongoose.Schema(
  {
    hash: { type: String, ref: "InvoiceUser" },
    external_id: String,
    vout: Number,
    txid: String,
    type: { required: true, type: String },
    pending: { required: true, type: Boolean },
    bundle_completion_state: String,
    currency: { required: true, type: String, enum: ["USD", "BTC"] },
    feeKnownInAdvance: Boolean,
    related_journal: String,
    payee_addresses: [String],
    request_id: String,
    payout_id: String,
    memoPayer: String,
    sats: Number,
    satsAmount: Number,
    centsAmount: Number,
    satsFee: { type: Number, default: 0 },
    centsFee: { type: Number, default: 0 },
    displayAmount: Number,
    displayFee: Number,
    displayCurrency: { type: String, default: "USD" },
    username: String,
    pubkey: String,
    fee: { type: Number, default: 0 },
    feeUsd: { type: Number, default: 0 },
    usd: Number,
    // medici's own
    credit: Number,
    debit: Number,
    meta: mongoose.Schema.Types.Mixed,
    datetime: Date,
    account_path: [String],
    accounts: String,
    book: String,
    memo: String,
    _journal: { type: mongoose.Schema.Types.ObjectId, ref: "Medici_Journal" },
    timestamp: Date,
    voided: Boolean,
    void_reason: String,
    _original_journal: { type: mongoose.Schema.Types.ObjectId, ref: "Medici_Journal" },
  },
  { id: false, versionKey: false, timestamps: false },
);
setTransactionSchema(legSchema, undefined, { defaultIndexes: false });

const book = new Book("MainBook", { balanceSnapshotSec: SIX_HOURS_S });

const legs = () => mongoose.connection.collection("medici_transactions");

const commands = {
  // Balance of one account in one currency, and how many legs it is made of.
  balance: ({ account, currency }) => book.balance({ account, currency }),

  // An account's legs, newest first.
  ledger: async ({ account, currency }) => (await book.ledger({ account, currency })).results,

  // Writes a journal: legs of {account, debit or credit, details}, `common` details on each.
  write: async ({ memo, datetime_ms, legs, common }) => {
    const entry = book.entry(memo, datetime_ms === undefined ? null : new Date(datetime_ms));
    for (const { account, debit, credit, details } of legs) {
      const metadata = { ...common, ...details };
      if (debit) entry.debit(account, debit, metadata);
      if (credit) entry.credit(account, credit, metadata);
    }
    return (await entry.commit())._id;
  },

  // A send has arrived, or has failed: Blink takes `pending` off by hash.
  settle: async ({ hash }) => (await legs().updateMany({ hash }, { $set: { pending: false } })).matchedCount,

  // A send has failed: Blink voids its journal.
  void: async ({ journal, reason }) => (await book.void(journal, reason))._id,
};

async function main(url, database) {
  await mongoose.connect(url, { dbName: database, writeConcern: { w: "majority" } });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { command, ...values } = JSON.parse(line);
    let answer;
    try {
      answer = { result: await commands[command](values) };
    } catch (error) {
      answer = { error: String(error.stack) };
    }
    process.stdout.write(EJSON.stringify(answer, { relaxed: false }) + "\n");
  }
  await mongoose.disconnect();
}

main(process.argv[2], process.argv[3]).catch((error) => {
  console.error(error);
  process.exit(1);
});
