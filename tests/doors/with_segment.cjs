// Sends a message of each type with Segment's published Node library: HOST WRITE_KEY.
const { Analytics } = require('@segment/analytics-node')

const [host, writeKey] = process.argv.slice(2)
const analytics = new Analytics({ host, writeKey, flushAt: 3 })
const failed = []
analytics.on('error', (error) => failed.push(error))
analytics.identify({ userId: 'js-user', traits: { email: 'b@example.com' } })
analytics.track({ userId: 'js-user', event: 'Item Bought', properties: { price: 1.5 } })
analytics.page({ userId: 'js-user', name: 'Home' })
analytics.screen({ anonymousId: 'js-cookie', name: 'Start' })
analytics.group({ userId: 'js-user', groupId: 'company' })
analytics.alias({ userId: 'js-user', previousId: 'js-cookie' })
analytics.closeAndFlush().then(() => console.log(failed.length ? failed : 'all is as it should be'))
