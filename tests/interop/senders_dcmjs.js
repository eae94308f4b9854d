// Sends files with dcmjs-dimse: node senders_dcmjs.js HOST PORT CALLED_AE FILE...
// Prints "not sent: FILE: reason" for a file that it cannot read or that was not answered.
const { Client, Dataset, association, requests } = require('dcmjs-dimse');

const [host, port, calledAeTitle, ...files] = process.argv.slice(2);
const notSent = (file, reason) => console.log(`not sent: ${file}: ${String(reason).replace(/\s+/g, ' ')}`);

const client = new Client();
const unanswered = new Set();
const proposed = new Set();

// The client proposes the uncompressed ones together, and may take a context for a compressed one if it gets the other.
function proposeAlone(sopClassUid, transferSyntaxUid) {
  const key = `${sopClassUid} ${transferSyntaxUid}`;
  if (transferSyntaxUid.match(/^1\.2\.840\.10008\.1\.2(\.1)?$/) && !proposed.has(key)) {
    proposed.add(key);
    const context = new association.PresentationContext(0, sopClassUid, transferSyntaxUid);
    client.addAdditionalPresentationContext(context, true);
  }
}

for (const file of files) {
  try {
    const dataset = Dataset.fromFile(file);
    if (dataset.getElement('SOPClassUID') === undefined) {
      throw new Error('it has no SOP Class UID'); // which the client would not survive
    }
    const request = new requests.CStoreRequest(dataset);
    request.on('response', () => unanswered.delete(file));
    client.addRequest(request);
    proposeAlone(dataset.getElement('SOPClassUID'), dataset.getTransferSyntaxUid());
    unanswered.add(file);
  } catch (error) {
    notSent(file, error);
  }
}
client.on('connected', () => client.network.socket.setNoDelay(true));
client.on('networkError', (error) => console.log('network error:', error));
client.on('closed', () => unanswered.forEach((file) => notSent(file, 'no response')));
client.send(host, Number(port), 'DCMJS', calledAeTitle, {
  asyncOps: { maxAsyncOpsInvoked: 8, maxAsyncOpsPerformed: 1 },
  datasetWriteOptions: { allowInvalidVRLength: true },
});
